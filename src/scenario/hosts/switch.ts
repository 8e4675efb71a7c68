import { existsSync, readdirSync } from 'node:fs';
import { mustRun, runCommand } from './command.ts';
import { LAB_PATH } from './requirements.ts';

const NETNS_DIR = '/run/netns';
const BRIDGE = 'type bridge stp_state 0 forward_delay 0 mcast_snooping 0';

/**
 * The wires. The switch lives in a network namespace of its own, else another engine's firewall rules would filter its
 * bridges. Ports change bridges with carrier up, so that a cut is silence and not a pulled plug.
 */
export class LabSwitch {
  readonly #prefix: string;
  readonly #net: string;
  readonly #switch: string;
  readonly #bridges = new Set<string>();

  constructor(prefix: string, net: string) {
    this.#prefix = prefix;
    this.#net = net;
    this.#switch = `${prefix}-sw`;
  }

  namespace(host: number): string {
    return `${this.#prefix}-${host}`;
  }

  async create(): Promise<void> {
    await ip(['netns', 'add', this.#switch]);
    // Bridged frames must not pass through iptables, should the module be loaded.
    const quiet =
      'for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -w "$f" ] || echo 0 >"$f"; done; ip link set lo up';
    await mustRun(['ip', 'netns', 'exec', this.#switch, 'sh', '-c', quiet], { env: env() });
    await this.#bridge('br0');
  }

  /** A namespace with eth0, its port unplugged. The default route goes out of eth0: multicast needs a route. */
  async addHost(host: number): Promise<void> {
    const name = this.namespace(host);
    const mac = `02:44:00:00:00:${host.toString(16).padStart(2, '0')}`;
    await batch(null, [
      `netns add ${name}`,
      `link add eth0 netns ${name} address ${mac} type veth peer name p${host} netns ${this.#switch}`,
    ]);
    await this.#onSwitch([`link set p${host} up`]);
    await batch(name, [
      'link set lo up',
      `addr add ${this.#net}.${host}/24 brd + dev eth0`,
      'link set eth0 up',
      'route add default dev eth0',
    ]);
  }

  async removeHost(host: number): Promise<void> {
    if (existsSync(`${NETNS_DIR}/${this.#switch}`))
      await runCommand(['ip', '-n', this.#switch, 'link', 'del', `p${host}`], { env: env() });
    if (existsSync(`${NETNS_DIR}/${this.namespace(host)}`))
      await runCommand(['ip', 'netns', 'del', this.namespace(host)], { env: env() });
  }

  async plug(hosts: readonly number[], bridge = 'br0'): Promise<void> {
    if (hosts.length > 0) await this.#onSwitch(hosts.map((host) => `link set p${host} master ${bridge}`));
  }

  async unplug(host: number): Promise<void> {
    await this.#onSwitch([`link set p${host} nomaster`]);
  }

  /** One batch, so that the split happens within a millisecond. */
  async partition(groups: readonly (readonly number[])[], alone: readonly number[]): Promise<void> {
    for (let group = 1; group <= groups.length; group += 1) await this.#bridge(`br${group}`);
    const moves = groups.flatMap((hosts, index) => hosts.map((host) => `link set p${host} master br${index + 1}`));
    await this.#onSwitch([...moves, ...alone.map((host) => `link set p${host} nomaster`)]);
  }

  /** Every namespace of this prefix, from this run or an earlier one. */
  async removeAll(): Promise<void> {
    this.#bridges.clear();
    for (const name of this.present()) await runCommand(['ip', 'netns', 'del', name], { env: env() });
  }

  present(): readonly string[] {
    if (!existsSync(NETNS_DIR)) return [];
    const mine = new RegExp(`^${this.#prefix}-(sw|\\d+)$`);
    return readdirSync(NETNS_DIR).filter((name) => mine.test(name));
  }

  async #bridge(name: string): Promise<void> {
    if (this.#bridges.has(name)) return;
    await this.#onSwitch([`link add ${name} ${BRIDGE}`, `link set ${name} up`]);
    this.#bridges.add(name);
  }

  async #onSwitch(lines: readonly string[]): Promise<void> {
    await batch(this.#switch, lines);
  }
}

async function batch(namespace: string | null, lines: readonly string[]): Promise<void> {
  await mustRun(['ip', ...(namespace === null ? [] : ['-n', namespace]), '-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    env: env(),
  });
}

async function ip(args: readonly string[]): Promise<void> {
  await mustRun(['ip', ...args], { env: env() });
}

function env(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: LAB_PATH };
}
