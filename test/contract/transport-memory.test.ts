import { createMemoryTransport, MemoryNetwork } from '../../src/adapters/memory/transport.ts';
import { nodeId } from '../../src/model/ids.ts';
import { transportContract } from './transport-contract.ts';

transportContract('memory', () => {
  const network = new MemoryNetwork();
  return { create: async (index) => createMemoryTransport({ self: nodeId(`peer-${index}`), network }) };
});
