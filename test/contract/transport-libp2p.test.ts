import { randomBytes } from 'node:crypto';
import { generateKeyPair } from '@libp2p/crypto/keys';
import { createLibp2pTransport } from '../../src/adapters/libp2p/transport.ts';
import { clusterId } from '../../src/model/ids.ts';
import { transportContract } from './transport-contract.ts';

transportContract('libp2p', () => {
  const secrets = { current: randomBytes(32), previous: [] };
  const keys = new Map<number, ReturnType<typeof generateKeyPair>>();
  return {
    create: async (index) => {
      const key = keys.get(index) ?? generateKeyPair('Ed25519');
      keys.set(index, key);
      return createLibp2pTransport({
        privateKey: await key,
        clusterId: clusterId('contract'),
        secrets,
        listen: ['/ip4/127.0.0.1/tcp/0'],
        mdns: false,
      });
    },
  };
});
