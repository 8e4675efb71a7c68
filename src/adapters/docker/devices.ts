import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TaskSpec } from '../../model/task-spec.ts';

/** Device files of the classes a task may ask for by one word. Others go to the engine as capabilities or CDI names. */
const DEVICE_FILES: Readonly<Record<string, RegExp>> = {
  fpga: /^(?:fpga|intel-fpga|xdma|xclmgmt|dfl-fme|dfl-port)[\w.-]*$/,
  kvm: /^kvm$/,
  tpu: /^(?:apex_|accel)\d+$/,
  video: /^video\d+$/,
  serial: /^tty(?:USB|ACM)\d+$/,
  fuse: /^fuse$/,
};

interface DeviceRequest {
  readonly Driver: string;
  readonly Count?: number;
  readonly DeviceIDs?: readonly string[];
  readonly Capabilities: readonly (readonly string[])[];
}

/**
 * GPUs by the engine's own device drivers; a class from the list above as the device files this machine has of it;
 * `vendor.com/class=name` by CDI (engines from 25 on); anything else as a capability some driver of the engine may know
 * (if none does, the engine refuses, in words).
 */
export function deviceMappings(spec: Pick<TaskSpec, 'gpus' | 'devices'>, deviceDir = '/dev'): object {
  const requests: DeviceRequest[] = [];
  const files: string[] = [];
  if (spec.gpus > 0) requests.push({ Driver: '', Count: spec.gpus, Capabilities: [['gpu']] });
  const cdi = spec.devices.filter((d) => d.includes('='));
  if (cdi.length > 0) requests.push({ Driver: 'cdi', DeviceIDs: cdi, Capabilities: [] });
  for (const name of spec.devices.filter((d) => !d.includes('='))) {
    const pattern = Object.hasOwn(DEVICE_FILES, name) ? DEVICE_FILES[name] : undefined;
    const found = pattern ? list(deviceDir).filter((file) => pattern.test(file)) : [];
    if (found.length > 0) files.push(...found.map((file) => join(deviceDir, file)));
    else requests.push({ Driver: '', Count: -1, Capabilities: [[name]] });
  }
  return {
    ...(requests.length > 0 ? { DeviceRequests: requests } : {}),
    ...(files.length > 0
      ? { Devices: files.map((path) => ({ PathOnHost: path, PathInContainer: path, CgroupPermissions: 'rwm' })) }
      : {}),
  };
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
