import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { NodeLoad, NodeResources } from '../../model/facts.ts';
import { list, readNumber, readText } from './sysfs.ts';

/** nvidia-smi takes half a second of CPU on some machines: never more often than this. */
const GPU_EVERY_MS = 15_000;
const GPU_TIMEOUT_MS = 5_000;
const VENDORS: Readonly<Record<string, string>> = { '0x1002': 'AMD', '0x10de': 'NVIDIA', '0x8086': 'Intel' };
/** Display adapters of virtual machines and management boards compute nothing. */
const NO_GPU = new Set([
  'bochs-drm',
  'virtio_gpu',
  'virtio-pci',
  'vmwgfx',
  'qxl',
  'cirrus',
  'ast',
  'mgag200',
  'hyperv_drm',
  'simple-framebuffer',
  'vkms',
]);

export type Gpu = NodeResources['gpus'][number] & NodeLoad['gpus'][number];

/** GPUs by nvidia-smi where it is installed, else by the kernel's DRM classes. */
export class GpuReader {
  readonly #root: string;
  readonly #smi: string | undefined;
  readonly #now: () => number;
  #cached: { readonly at: number; readonly gpus: readonly Gpu[] } | undefined;

  constructor(root: string, path = process.env.PATH ?? '', now: () => number = () => performance.now()) {
    this.#root = root;
    this.#now = now;
    this.#smi = path
      .split(':')
      .map((dir) => join(dir, 'nvidia-smi'))
      .find(isExecutable);
  }

  async read(): Promise<readonly Gpu[]> {
    if (this.#smi === undefined) return readDrm(this.#root);
    const at = this.#now();
    if (this.#cached === undefined || at - this.#cached.at >= GPU_EVERY_MS) {
      const nvidia = await runSmi(this.#smi);
      // A driver that does not answer keeps what was known of it.
      this.#cached = { at, gpus: nvidia ?? this.#cached?.gpus ?? [] };
    }
    return [...this.#cached.gpus, ...readDrm(this.#root).filter((gpu) => !gpu.name.startsWith('NVIDIA'))];
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function runSmi(path: string): Promise<Gpu[] | undefined> {
  const args = [
    '--query-gpu=name,memory.total,memory.used,utilization.gpu,temperature.gpu',
    '--format=csv,noheader,nounits',
  ];
  return new Promise((resolve) => {
    execFile(path, args, { timeout: GPU_TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: 64 * 1024 }, (error, stdout) => {
      resolve(error ? undefined : parseSmi(stdout));
    });
  });
}

export function parseSmi(csv: string): Gpu[] {
  const number = (text: string | undefined): number | null => {
    const n = Number(text?.trim());
    return text === undefined || text.trim() === '' || Number.isNaN(n) ? null : n;
  };
  const lines = csv.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => {
    const [name = '', total, used, usage, temperature] = line.split(',').map((field) => field.trim());
    const usedMiB = number(used);
    const percent = number(usage);
    return {
      name,
      memoryBytes: (number(total) ?? 0) * 2 ** 20,
      memoryUsedBytes: usedMiB === null ? null : usedMiB * 2 ** 20,
      usage: percent === null ? null : percent / 100,
      temperatureC: number(temperature),
    };
  });
}

/** Cards of /sys/class/drm. Memory and use are told by amdgpu only. */
export function readDrm(root: string): Gpu[] {
  const drm = join(root, 'sys/class/drm');
  const gpus: Gpu[] = [];
  for (const card of list(drm)) {
    if (!/^card\d+$/.test(card)) continue;
    const device = join(drm, card, 'device');
    const uevent = readText(join(device, 'uevent')) ?? '';
    const driver = /^DRIVER=(.*)$/m.exec(uevent)?.[1] ?? '';
    if (NO_GPU.has(driver)) continue;
    const vendor = readText(join(device, 'vendor')) ?? '';
    const busy = readNumber(join(device, 'gpu_busy_percent'));
    gpus.push({
      name:
        [
          VENDORS[vendor] ?? vendor,
          readText(join(device, 'product_name')) || (readText(join(device, 'device')) ?? driver),
        ]
          .filter((s) => s !== '')
          .join(' ') || card,
      memoryBytes: readNumber(join(device, 'mem_info_vram_total')) ?? 0,
      memoryUsedBytes: readNumber(join(device, 'mem_info_vram_used')) ?? null,
      usage: busy === undefined ? null : busy / 100,
      temperatureC: null,
    });
  }
  return gpus;
}

/** Device classes that tasks may ask for, e.g. `gpu`, `fpga`, `kvm`. */
export function readDeviceClasses(root: string, gpus: number): string[] {
  const has = (...paths: string[]): boolean => paths.some((path) => list(join(root, path)).length > 0);
  const classes: string[] = [];
  if (has('sys/class/fpga_manager', 'sys/class/fpga', 'sys/class/fpga_region')) classes.push('fpga');
  if (gpus > 0) classes.push('gpu');
  if (list(join(root, 'dev')).includes('kvm')) classes.push('kvm');
  if (has('sys/class/video4linux')) classes.push('camera');
  if (has('sys/class/accel')) classes.push('accelerator');
  return classes;
}
