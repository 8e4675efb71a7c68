import { join } from 'node:path';
import type { NodeLoad } from '../../model/facts.ts';
import { list, readNumber, readText } from './sysfs.ts';

/** The hottest sensor that reads like a temperature of this machine, degrees Celsius; null where there is none. */
export function readTemperatureC(root: string): number | null {
  const found: number[] = [];
  const thermal = join(root, 'sys/class/thermal');
  for (const zone of list(thermal)) {
    if (zone.startsWith('thermal_zone')) found.push(readNumber(join(thermal, zone, 'temp')) ?? Number.NaN);
  }
  const hwmon = join(root, 'sys/class/hwmon');
  for (const chip of list(hwmon)) {
    for (const file of list(join(hwmon, chip)))
      if (/^temp\d+_input$/.test(file)) found.push(readNumber(join(hwmon, chip, file)) ?? Number.NaN);
  }
  // Sensors that are not connected read 0, -128 or 255 degrees.
  const sane = found.map((milli) => milli / 1000).filter((c) => c > 0 && c < 150);
  return sane.length > 0 ? Math.round(Math.max(...sane) * 10) / 10 : null;
}

export function readFansRpm(root: string): number[] {
  const hwmon = join(root, 'sys/class/hwmon');
  return list(hwmon).flatMap((chip) =>
    list(join(hwmon, chip))
      .filter((file) => /^fan\d+_input$/.test(file))
      .map((file) => readNumber(join(hwmon, chip, file)))
      .filter((rpm) => rpm !== undefined),
  );
}

/** All batteries of the machine as one: the mean of their charge; charging when none discharges. Batteries of mice do not count. */
export function readBattery(root: string): NodeLoad['battery'] {
  const supply = join(root, 'sys/class/power_supply');
  const batteries = list(supply).filter(
    (name) => readText(join(supply, name, 'type')) === 'Battery' && readText(join(supply, name, 'scope')) !== 'Device',
  );
  const charges = batteries
    .map((name) => readNumber(join(supply, name, 'capacity')))
    .filter((percent) => percent !== undefined);
  if (charges.length === 0) return null;
  const percent = Math.round(charges.reduce((a, b) => a + b, 0) / charges.length);
  return { percent, charging: !batteries.some((name) => readText(join(supply, name, 'status')) === 'Discharging') };
}
