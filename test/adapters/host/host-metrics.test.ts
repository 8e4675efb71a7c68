import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createHostMetrics } from '../../../src/adapters/host/host-metrics.ts';

const GIB = 2 ** 30;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'task-org-host-'));
  put('proc/stat', 'cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\nintr 5');
  put(
    'proc/meminfo',
    'MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:   12582912 kB\nBuffers: 1 kB',
  );
  put('proc/sys/kernel/hostname', 'fixture\n');
  put('etc/os-release', 'NAME="X"\nPRETTY_NAME="Fixture Linux 3"\n');
});
afterEach(() => rmSync(root, { recursive: true }));
const put = (path: string, text: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
};
const host = () => createHostMetrics({ dataDir: root, root, path: join(root, 'bin'), cpus: 8 });

describe('host facts', () => {
  it('tells of a bare machine only what it has', async () => {
    const { resources, os, hostname } = await host().describe();
    expect(resources).toMatchObject({ cpus: 8, memoryBytes: 16 * GIB, gpus: [], devices: [] });
    expect(resources.diskBytes).toBeGreaterThan(0);
    expect([os, hostname]).toEqual(['Fixture Linux 3', 'fixture']);
    const load = await host().load();
    expect(load).toMatchObject({
      memoryUsedBytes: 4 * GIB,
      temperatureC: null,
      battery: null,
      fansRpm: [],
      gpus: [],
      cpuFrequencyMHz: null,
    });
    expect(load.diskUsedBytes).toBeGreaterThan(0);
    expect(load.diskUsedBytes).toBeLessThan(resources.diskBytes);
  });

  it('measures CPU use between two looks', async () => {
    const metrics = host();
    expect((await metrics.load()).cpuUsage).toBe(0.2);
    put('proc/stat', 'cpu  175 0 100 725 100 0 0 0 90 0');
    expect((await metrics.load()).cpuUsage).toBe(0.75);
    // No time went by: the last figure stands.
    expect((await metrics.load()).cpuUsage).toBe(0.75);
  });

  it('reports the cgroup’s limits where they are lower, a parent’s too (v2)', async () => {
    put('proc/self/cgroup', '0::/a/b\n');
    put('sys/fs/cgroup/cgroup.controllers', 'cpu memory');
    put('sys/fs/cgroup/a/memory.max', String(2 * GIB));
    put('sys/fs/cgroup/a/memory.current', String(GIB));
    put('sys/fs/cgroup/a/b/memory.max', 'max');
    put('sys/fs/cgroup/a/b/cpu.max', '150000 100000');
    expect((await host().describe()).resources).toMatchObject({ cpus: 1.5, memoryBytes: 2 * GIB });
    expect((await host().load()).memoryUsedBytes).toBe(GIB);
  });

  it('the same under cgroup v1, where no limit is a huge number', async () => {
    put('proc/self/cgroup', '5:cpu,cpuacct:/x\n4:memory:/x/y\n0::/\n');
    put('sys/fs/cgroup/memory/x/y/memory.limit_in_bytes', String(3 * GIB));
    put('sys/fs/cgroup/memory/x/y/memory.usage_in_bytes', '77');
    put('sys/fs/cgroup/memory/memory.limit_in_bytes', '9223372036854771712');
    put('sys/fs/cgroup/cpu/x/cpu.cfs_quota_us', '-1');
    put('sys/fs/cgroup/cpu/x/cpu.cfs_period_us', '100000');
    expect((await host().describe()).resources).toMatchObject({ cpus: 8, memoryBytes: 3 * GIB });
    expect((await host().load()).memoryUsedBytes).toBe(77);
  });

  it('reads temperature, fans, frequency and battery', async () => {
    put('sys/class/thermal/thermal_zone0/temp', '45000');
    put('sys/class/thermal/thermal_zone1/temp', '-128000');
    put('sys/class/hwmon/hwmon0/temp1_input', '61250');
    put('sys/class/hwmon/hwmon0/temp1_max', '99000');
    put('sys/class/hwmon/hwmon0/fan1_input', '1200');
    put('sys/class/hwmon/hwmon1/fan2_input', '0');
    put('sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq', '2400123');
    put('sys/class/power_supply/BAT0/type', 'Battery\n');
    put('sys/class/power_supply/BAT0/capacity', '40\n');
    put('sys/class/power_supply/BAT0/status', 'Discharging\n');
    put('sys/class/power_supply/BAT1/type', 'Battery\n');
    put('sys/class/power_supply/BAT1/capacity', '61\n');
    put('sys/class/power_supply/BAT1/status', 'Full\n');
    put('sys/class/power_supply/mouse/type', 'Battery\n');
    put('sys/class/power_supply/mouse/scope', 'Device\n');
    put('sys/class/power_supply/mouse/capacity', '5\n');
    put('sys/class/power_supply/AC/type', 'Mains\n');
    expect(await host().load()).toMatchObject({
      temperatureC: 61.3,
      fansRpm: [1200, 0],
      cpuFrequencyMHz: 2400,
      battery: { percent: 51, charging: false },
    });
  });

  it('finds GPUs and FPGAs of the kernel, not the display of a virtual machine', async () => {
    put('sys/class/drm/card0/device/uevent', 'DRIVER=bochs-drm\n');
    put('sys/class/drm/card1/device/uevent', 'DRIVER=amdgpu\n');
    put('sys/class/drm/card1/device/vendor', '0x1002');
    put('sys/class/drm/card1/device/device', '0x744c');
    put('sys/class/drm/card1/device/mem_info_vram_total', String(8 * GIB));
    put('sys/class/drm/card1/device/mem_info_vram_used', String(GIB));
    put('sys/class/drm/card1/device/gpu_busy_percent', '25');
    put('sys/class/drm/card1-DP-1/status', 'connected');
    put('sys/class/fpga_manager/fpga0/name', 'Xilinx');
    const { resources } = await host().describe();
    expect(resources.gpus).toEqual([{ name: 'AMD 0x744c', memoryBytes: 8 * GIB }]);
    expect(resources.devices).toEqual(['fpga', 'gpu']);
    expect((await host().load()).gpus).toEqual([{ usage: 0.25, memoryUsedBytes: GIB, temperatureC: null }]);
  });

  it('asks nvidia-smi where it is installed, and bears its refusing to answer', async () => {
    put(
      'bin/nvidia-smi',
      '#!/bin/sh\necho "NVIDIA T4, 15360, 1024, 50, 41"\necho "NVIDIA X, [N/A], [N/A], [N/A], [N/A]"\n',
    );
    chmodSync(join(root, 'bin/nvidia-smi'), 0o755);
    expect((await host().describe()).resources.gpus).toEqual([
      { name: 'NVIDIA T4', memoryBytes: 15 * GIB },
      { name: 'NVIDIA X', memoryBytes: 0 },
    ]);
    expect((await host().load()).gpus[0]).toEqual({ usage: 0.5, memoryUsedBytes: GIB, temperatureC: 41 });
    put('bin/nvidia-smi', '#!/bin/sh\nexit 9\n');
    expect((await host().load()).gpus).toEqual([]);
  });

  it('reads this very machine', async () => {
    const metrics = createHostMetrics({ dataDir: root });
    const { resources } = await metrics.describe();
    expect(resources.cpus).toBeGreaterThan(0);
    expect(resources.memoryBytes).toBeGreaterThan(2 ** 20);
    const load = await metrics.load();
    expect(load.cpuUsage).toBeGreaterThanOrEqual(0);
    expect(load.memoryUsedBytes).toBeLessThanOrEqual(resources.memoryBytes);
  });
});
