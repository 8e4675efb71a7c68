import { incarnation as inc, type Incarnation, monoMs, type MonoMs, type NodeId } from '../../model/ids.ts';
import { createRng } from '../../model/random.ts';
import type { MembershipConfig, MembershipEffect, MembershipEvent, MembershipMessage, MemberStatus, MemberUpdate, MemberView } from './types.ts';

interface Member {
  id: NodeId; status: MemberStatus; incarnation: Incarnation; since: MonoMs; lastHeardAt: MonoMs | undefined; accusers: Map<NodeId, number>; connected: boolean; hint: 'none' | 'closed' | 'refused';
  probeAt: number; waitingSince: number | undefined; bootAttempt: number; bootAskedAt: number | undefined; bootAckAt: number; 
}
export interface Membership {
  step(event: MembershipEvent, now: MonoMs): MembershipEffect[];
  nextWake(): MonoMs | undefined;
  view(id: NodeId): MemberView | undefined;
  members(): ReadonlyMap<NodeId, MemberView>;
  monitored(): readonly NodeId[];
}
const severity: Record<MemberStatus, number> = { alive: 0, suspect: 1, 'agent-down': 2, dead: 3, left: 4 };

export function createMembership(options: { self: NodeId; incarnation: Incarnation; config: MembershipConfig; seed: string }): Membership {
  const { self, config } = options;
  const rng = createRng(options.seed);
  let own = options.incarnation;
  let now = monoMs(0);
  let out: MembershipEffect[] = [];
  let seq = 1;
  const members = new Map<NodeId, Member>();
  const update = (m: Member): MemberUpdate => ({ id: m.id, status: m.status, incarnation: m.incarnation, accusers: [...m.accusers.keys()] });
  const send = (to: NodeId, message: MembershipMessage): void => { if (members.get(to)?.connected) out.push({ type: 'send', to, message }); };
  const spread = (u: MemberUpdate): void => {
    for (const m of members.values()) if (m.connected && m.id !== u.id) send(m.id, { type: 'updates', updates: [u] });
    out.push({ type: 'gossip', updates: [u] });
  };
  const set = (m: Member, to: MemberStatus, evidence: string[], tell = true): void => {
    if (m.status === to) return;
    const from = m.status;
    m.status = to; m.since = now;
    out.push({ type: 'changed', change: { id: m.id, from, to, incarnation: m.incarnation, accusers: [...m.accusers.keys()], evidence } });
    if (tell) spread(update(m));
  };
  const heard = (m: Member, direct: boolean): void => {
    m.lastHeardAt = now; m.waitingSince = undefined; m.bootAskedAt = undefined; m.bootAttempt = 0; m.accusers.delete(self);
    if (direct) m.hint = 'none';
    if (m.status !== 'alive' && m.status !== 'left') { m.accusers.clear(); set(m, 'alive', ['answers again']); }
  };
  const askBoot = (m: Member): void => {
    if (m.bootAskedAt !== undefined && now - m.bootAskedAt < config.bootProbeTimeoutMs) return;
    if (m.bootAttempt >= config.bootProbeAttempts) return;
    m.bootAttempt += 1; m.bootAskedAt = now;
    out.push({ type: 'probe-boot', peer: m.id, attempt: m.bootAttempt });
  };
  const silentFor = (m: Member): number => (m.waitingSince === undefined ? 0 : now - m.waitingSince);
  const accuse = (m: Member): void => {
    if (!m.accusers.has(self)) { m.accusers.set(self, now); set(m, 'suspect', [`no answer for ${Math.round(silentFor(m))} ms, boot silent`], false); spread(update(m)); }
    decide(m);
  };
  const others = (m: Member): Member[] => [...members.values()].filter((o) => o !== m && o.status === 'alive' && o.connected);
  const decide = (m: Member): void => {
    if (m.status !== 'suspect' || !m.accusers.has(self) && m.accusers.size < 2) return;
    const needed = others(m).length >= 1 ? 2 : 1;
    const first = Math.min(...m.accusers.values());
    const wait = m.accusers.size >= needed ? config.suspicionMinMs : config.suspicionMaxMs;
    if (now - first >= wait) {
      set(m, 'dead', [`no answer for ${Math.round(now - (m.lastHeardAt ?? now))} ms`, `boot silent after ${config.bootProbeAttempts} probes`, ...(m.hint === 'none' ? [] : [m.hint === 'closed' ? 'connection closed' : 'port refused']), `${m.accusers.size} peers agree: ${[...m.accusers.keys()].join(', ')}`]);
    }
  };
  const look = (m: Member): void => {
    const gone = m.hint !== 'none' && !m.connected;
    if (m.waitingSince !== undefined && (gone || now - m.waitingSince >= config.ackTimeoutMs)) {
      askBoot(m);
      const bootSilent = m.bootAttempt >= config.bootProbeAttempts && m.bootAskedAt !== undefined && now - m.bootAskedAt >= config.bootProbeTimeoutMs;
      if (bootSilent && m.bootAckAt < (m.waitingSince ?? 0)) accuse(m);
    }
    if (m.status === 'suspect') decide(m);
    if (now >= m.probeAt) {
      m.probeAt = now + config.probeIntervalMs * (0.9 + 0.2 * rng.next());
      if (m.status === 'left') return;
      m.waitingSince ??= now;
      if (m.connected) send(m.id, { type: 'ping', seq: seq++, incarnation: own, updates: [] });
      if (m.bootAckAt >= (m.waitingSince ?? 0) && now - m.waitingSince >= config.ackTimeoutMs) { if (m.status === 'alive' || m.status === 'suspect') { m.accusers.clear(); set(m, 'agent-down', ['agent silent, boot answers']); } m.bootAttempt = 0; }
      if (m.status === 'dead') m.bootAttempt = 0;
    }
  };
  const take = (u: MemberUpdate, from: NodeId): void => {
    if (u.id === self) {
      if (u.status !== 'alive' && u.incarnation >= own) { own = inc(u.incarnation + 1); out.push({ type: 'incarnation', incarnation: own }); spread({ id: self, status: 'alive', incarnation: own, accusers: [] }); }
      return;
    }
    const m = members.get(u.id);
    if (!m) return;
    if (u.incarnation > m.incarnation) { m.incarnation = u.incarnation; m.accusers.clear(); if (u.status === 'alive') set(m, 'alive', ['new incarnation'], false); }
    if (u.incarnation < m.incarnation) return;
    if (u.status === 'suspect') {
      for (const a of u.accusers) if (a === from && !m.accusers.has(a)) m.accusers.set(a, now);
      if (m.status === 'alive' && m.accusers.size > 0 && (m.waitingSince !== undefined && now - m.waitingSince > 20 || !m.connected)) { m.waitingSince ??= now; askBoot(m); }
      decide(m);
    } else if (u.status === 'dead' && severity[m.status] < 3) {
      const healthy = m.connected && m.lastHeardAt !== undefined && now - m.lastHeardAt < config.ackTimeoutMs * 2 && m.hint === 'none';
      if (!healthy) { for (const a of u.accusers) if (!m.accusers.has(a)) m.accusers.set(a, now); set(m, 'dead', [`${u.accusers.length} peers agree`], false); }
    } else if (u.status === 'left') set(m, 'left', ['left'], false);
  };
  const views = new Map<NodeId, MemberView>();
  return {
    step(event, at) {
      now = at;
      switch (event.type) {
        case 'tick':
          if (event.lateMs > config.lateTickMs) { for (const m of members.values()) { m.waitingSince = undefined; m.bootAskedAt = undefined; m.bootAttempt = 0; } }
          for (const m of members.values()) look(m);
          break;
        case 'peers': {
          const keep = new Set(event.peers);
          for (const id of [...members.keys()]) if (!keep.has(id)) { members.delete(id); views.delete(id); }
          for (const id of event.peers) if (id !== self && !members.has(id)) {
            const m: Member = { id, status: 'alive', incarnation: inc(0), since: now, lastHeardAt: undefined, accusers: new Map(), connected: false, hint: 'none', probeAt: now + config.probeIntervalMs, waitingSince: undefined, bootAttempt: 0, bootAskedAt: undefined, bootAckAt: -1 };
            members.set(id, m);
            views.set(id, { id, get status() { return m.status; }, get incarnation() { return m.incarnation; }, get since() { return m.since; }, get lastHeardAt() { return m.lastHeardAt; }, get accusers() { return [...m.accusers.keys()]; }, get connected() { return m.connected; }, get hint() { return m.hint; } });
          }
          break;
        }
        case 'connected': {
          const m = members.get(event.peer);
          if (m) { m.connected = true; if (m.status === 'left') set(m, 'alive', ['back'], false); heard(m, true); send(m.id, { type: 'push-pull', reply: true, updates: [{ id: self, status: 'alive', incarnation: own, accusers: [] }, ...[...members.values()].map(update)] }); }
          break;
        }
        case 'disconnected': {
          const m = members.get(event.peer);
          if (m && m.status !== 'left') { m.connected = false; m.hint = 'closed'; m.waitingSince = now; m.bootAttempt = 0; m.bootAskedAt = undefined; out.push({ type: 'dial', peer: m.id }); askBoot(m); } else if (m) m.connected = false;
          break;
        }
        case 'dial-failed': { const m = members.get(event.peer); if (m && event.refused && !m.connected) m.hint = 'refused'; break; }
        case 'boot-ack': { const m = members.get(event.peer); if (m) { m.bootAckAt = now; } break; }
        case 'leave': spread({ id: self, status: 'left', incarnation: own, accusers: [] }); break;
        case 'message': {
          const m = members.get(event.from);
          const msg = event.message;
          if (msg.type === 'ping') { if (m) { if (msg.incarnation > m.incarnation) m.incarnation = msg.incarnation; heard(m, true); send(m.id, { type: 'ack', seq: msg.seq, incarnation: own, updates: m.status === 'alive' ? [] : [update(m)] }); } }
          else if (msg.type === 'ack') { if (m) { if (msg.incarnation > m.incarnation) m.incarnation = msg.incarnation; heard(m, true); } }
          else if (msg.type === 'updates' || msg.type === 'push-pull') { for (const u of msg.updates) take(u, event.from); if (msg.type === 'push-pull' && msg.reply) send(event.from, { type: 'push-pull', reply: false, updates: [{ id: self, status: 'alive', incarnation: own, accusers: [] }, ...[...members.values()].map(update)] }); }
          break;
        }
      }
      const e = out; out = []; return e;
    },
    nextWake() {
      let best = Number.POSITIVE_INFINITY;
      for (const m of members.values()) {
        best = Math.min(best, m.probeAt);
        if (m.bootAskedAt !== undefined && m.waitingSince !== undefined && m.status !== 'dead' && m.bootAttempt <= config.bootProbeAttempts && m.bootAckAt < m.waitingSince) best = Math.min(best, Math.max(now + 5, m.bootAskedAt + config.bootProbeTimeoutMs));
        if (m.waitingSince !== undefined && m.bootAskedAt === undefined && m.status === 'alive') best = Math.min(best, Math.max(now + 5, m.waitingSince + config.ackTimeoutMs));
        if (m.status === 'suspect') best = Math.min(best, now + 20);
      }
      return best === Number.POSITIVE_INFINITY ? undefined : monoMs(best);
    },
    view: (id) => views.get(id),
    members: () => views,
    monitored: () => [...members.keys()],
  };
}
