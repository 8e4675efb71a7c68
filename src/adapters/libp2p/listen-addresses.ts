import { networkInterfaces } from 'node:os';
import type { NodeId } from '../../model/ids.ts';
import { ipOf, isLoopback, withoutPeerId } from './address-book.ts';
import type { BuiltNode } from './node.ts';

/**
 * Multiaddrs others can dial, with the PeerId: the machine's own networks first, then bridges of container engines (which
 * lead nowhere from other machines), loopback last (for several peers on one machine). Read anew each time: interfaces
 * come and go.
 */
export function listenAddresses(node: BuiltNode, self: NodeId): string[] {
  const bridges = new Set<string>();
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (/^(docker|br-|veth|virbr|lxc|cni|flannel|podman)/.test(name))
      for (const address of addresses ?? []) bridges.add(address.address);
  }
  const rank = (address: string): number => (isLoopback(address) ? 2 : bridges.has(ipOf(address) ?? '') ? 1 : 0);
  return (
    node.components.transportManager
      .getAddrs()
      .map((address) => withoutPeerId(address.toString()))
      .filter((address) => address !== null)
      // Link-local IPv6 needs a zone that means nothing to others.
      .filter((address) => !address.startsWith('/ip6/fe80'))
      .sort((a, b) => rank(a) - rank(b))
      .map((address) => `${address}/p2p/${self}`)
  );
}
