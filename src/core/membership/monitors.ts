import type { NodeId } from '../../model/ids.ts';

// Rendezvous hashing (Thaler & Ravishankar 1996): every member has the `count` monitors with the highest score for it, so
// nobody goes unwatched (ring or random choice leaves some out), each peer watches `count` others on average, and one
// peer's coming or going moves only the watches it takes part in.

/** FNV-1a, 32 bits. Spreads load; proves nothing. */
function hashText(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** Score of a watcher for a target, from their hashes (finalizer of MurmurHash3). */
function score(watcher: number, target: number): number {
  let h = Math.imul(watcher ^ ((target << 13) | (target >>> 19)), 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Higher score first; equal scores by id, so that every peer computes the same. */
const before = (scoreA: number, idA: NodeId, scoreB: number, idB: NodeId): boolean =>
  scoreA > scoreB || (scoreA === scoreB && idA < idB);

/** The `count` peers that watch `target`. `peers`: the admitted set, target included or not. O(peers log peers). */
export function monitorsOf(target: NodeId, peers: Iterable<NodeId>, count: number): NodeId[] {
  const t = hashText(target);
  const scored: { id: NodeId; s: number }[] = [];
  for (const id of peers) if (id !== target) scored.push({ id, s: score(hashText(id), t) });
  scored.sort((a, b) => (before(a.s, a.id, b.s, b.id) ? -1 : 1));
  return scored.slice(0, count).map((x) => x.id);
}

/** The targets that `self` watches: those for which it is among the `count` best. In the order of `peers`. */
export function watchedBy(self: NodeId, peers: readonly NodeId[], count: number): NodeId[] {
  const hashes = peers.map(hashText);
  const own = hashText(self);
  return peers.filter((target, t) => {
    if (target === self) return false;
    const targetHash = hashes[t] as number;
    const mine = score(own, targetHash);
    let ahead = 0;
    for (let i = 0; i < peers.length && ahead < count; i++) {
      const id = peers[i] as NodeId;
      if (id !== self && id !== target && before(score(hashes[i] as number, targetHash), id, mine, self)) ahead++;
    }
    return ahead < count;
  });
}
