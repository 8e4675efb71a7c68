import { randomBytes } from 'node:crypto';
import { generateKeyPair } from '@libp2p/crypto/keys';
import { afterEach, describe, expect, test } from 'vitest';
import type { Invitation } from '../../../src/adapters/libp2p/gate.ts';
import { type JoinOutcome, joinCluster } from '../../../src/adapters/libp2p/join.ts';
import { TaskOrgError } from '../../../src/model/errors.ts';
import { clusterId, wallMs } from '../../../src/model/ids.ts';
import type { JoinToken } from '../../../src/model/token.ts';
import type { JoinRequest } from '../../../src/ports/transport.ts';
import { CLUSTER, Rig, type TestPeer } from './harness.ts';

const info = { name: 'node7', addresses: [], labels: { zone: 'a' }, priority: 3, witness: false };
const later = Date.now() + 3_600_000;

describe('joining', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });

  const invite = (member: TestPeer, change: Partial<Invitation> = {}): JoinToken => {
    const invitation: Invitation = { id: 'inv-1', key: randomBytes(32), expiresAt: later, usesLeft: 1, ...change };
    member.transport.setInvitations([invitation]);
    return {
      clusterId: CLUSTER,
      invitationId: invitation.id,
      key: invitation.key,
      expiresAt: wallMs(invitation.expiresAt),
      addresses: member.transport.addresses(),
    };
  };
  const join = async (token: JoinToken, options: { mdnsPort?: number; withinMs?: number } = {}): Promise<JoinOutcome> =>
    joinCluster(
      {
        privateKey: await generateKeyPair('Ed25519'),
        token,
        listen: ['/ip4/127.0.0.1/tcp/0'],
        mdns: options.mdnsPort !== undefined,
        ...(options.mdnsPort === undefined ? {} : { mdnsPort: options.mdnsPort }),
        request: info,
      },
      AbortSignal.timeout(options.withinMs ?? 8_000),
    );
  const code = async (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => 'joined',
      (cause) => (cause instanceof TaskOrgError ? cause.code : String(cause)),
    );

  test('a token gets the grant from a member; the joiner then connects as a member', async () => {
    const member = await rig.peer();
    const token = invite(member);
    const requests: JoinRequest[] = [];
    member.recorder.join = async (request) => {
      requests.push(request);
      member.transport.setPeers([{ id: request.from, addresses: request.addresses }]);
      return {
        clusterId: CLUSTER,
        secret: rig.secret,
        dataKeys: [randomBytes(32)],
        peers: [{ id: member.transport.self, addresses: member.transport.addresses() }],
      };
    };
    const privateKey = await generateKeyPair('Ed25519');
    const grant = await joinCluster(
      { privateKey, token, listen: ['/ip4/127.0.0.1/tcp/0'], mdns: false, request: info },
      AbortSignal.timeout(8_000),
    );
    expect(requests).toMatchObject([
      { invitationId: 'inv-1', name: 'node7', labels: { zone: 'a' }, priority: 3, witness: false },
    ]);
    expect(Buffer.from(grant.secret).equals(rig.secret)).toBe(true);
    // The request named the port that the member's transport then takes.
    const joined = await rig.peer({
      privateKey,
      listen: grant.listen,
      secrets: { current: grant.secret, previous: [] },
    });
    expect(joined.transport.self).toBe(requests[0]?.from);
    expect(joined.transport.addresses()).toEqual(requests[0]?.addresses);
    joined.transport.setPeers(grant.peers);
    await joined.transport.dial(member.transport.self, AbortSignal.timeout(5_000));
    // A member never counted the joining connection as a peer.
    await member.recorder.until('connected', () => member.recorder.count('connected') > 0);
    expect(member.recorder.count('connected')).toBe(1);
  });

  test('expired, unknown, used up, forged and foreign tokens are told apart', async () => {
    const member = await rig.peer();
    expect(await code(join(invite(member, { expiresAt: Date.now() - 1 })))).toBe('token_expired');
    expect(await code(join(invite(member, { usesLeft: 0 })))).toBe('token_invalid');
    expect(await code(join({ ...invite(member), invitationId: 'inv-2' }))).toBe('token_invalid');
    expect(await code(join({ ...invite(member), key: randomBytes(32) }, { withinMs: 1_000 }))).toBe('not_admitted');
    expect(await code(join({ ...invite(member), clusterId: clusterId('cluster-b') }))).toBe('token_other_cluster');
    expect(member.recorder.heard).toEqual([]);
  });

  test('a refusal of the member arrives with its reason', async () => {
    const member = await rig.peer();
    member.recorder.join = async () => {
      throw new TaskOrgError('name_in_use', 'node7 is taken');
    };
    await expect(join(invite(member))).rejects.toMatchObject({ code: 'name_in_use', message: 'node7 is taken' });
  });

  test('while there is no master the joiner asks again until there is', async () => {
    const member = await rig.peer();
    let asked = 0;
    member.recorder.join = async () => {
      if (++asked < 3) throw new TaskOrgError('no_master', 'no master yet', { retryable: true });
      return { clusterId: CLUSTER, secret: rig.secret, dataKeys: [], peers: [] };
    };
    expect((await join(invite(member))).clusterId).toBe(CLUSTER);
    expect(asked).toBe(3);
  });

  test('without addresses in the token the member is found by mDNS', async () => {
    const mdnsPort = 20_000 + Math.floor(Math.random() * 20_000);
    const member = await rig.peer({ mdns: true, mdnsPort });
    member.recorder.join = async () => ({ clusterId: CLUSTER, secret: rig.secret, dataKeys: [], peers: [] });
    expect((await join({ ...invite(member), addresses: [] }, { mdnsPort })).clusterId).toBe(CLUSTER);
  });

  test('nobody there: unreachable, within the time given', async () => {
    const member = await rig.peer();
    const token = invite(member);
    await member.transport.stop();
    expect(await code(join(token, { withinMs: 700 }))).toBe('unreachable');
  });

  test('a port in use is named, with what to do', async () => {
    const member = await rig.peer();
    const port = /\/tcp\/(\d+)/.exec(member.transport.addresses()[0] ?? '')?.[1];
    await expect(rig.peer({ listen: [`/ip4/127.0.0.1/tcp/${port}`] })).rejects.toMatchObject({
      code: 'port_in_use',
      hint: expect.stringContaining('--listen'),
    });
  });
});
