// Named limits. Every queue, map, frame and retry refers to one of these; nothing grows without one.

export const LIMITS = {
  /** Largest gossip message, bytes. */
  gossipFrameBytes: 64 * 1024,
  /** Largest framed RPC message, bytes. */
  rpcFrameBytes: 1024 * 1024,
  /** Requests in flight on one RPC stream, per direction. */
  rpcInFlight: 1024,
  /** Bytes queued towards one peer before sends to it are refused. */
  rpcQueueBytes: 16 * 1024 * 1024,
  /** Admitted and known peers. */
  peers: 1000,
  /** Task records. */
  tasks: 20_000,
  replicasPerTask: 500,
  /** One task document as JSON, bytes. */
  taskSpecBytes: 48 * 1024,
  /** Submissions heard and not yet settled, per peer. */
  pendingSubmissions: 10_000,
  /** Settled submission ids remembered (for twice their expiry). */
  rememberedSubmissions: 100_000,
  /** Recoveries of one cluster that are remembered. */
  epochs: 64,
  invitations: 256,
  /** Cluster settings. */
  settings: 256,
  decisionsPerTask: 64,
  eventsKept: 10_000,
  /** Entries in one AppendEntries message. */
  appendEntries: 512,
  /** Bytes of payload in one AppendEntries message. */
  appendBytes: 768 * 1024,
  /** Applied entries kept in the log for lagging peers before compaction. */
  logRetained: 8192,
  /** Proposals waiting for commit on the leader. */
  proposalsInFlight: 4096,
  /** Copies a caretaker orders of one machine, and copies it drops there, in one message: with reasons, well below a frame. */
  caretakerOrders: 1024,
  gossipUpdatesPerMessage: 32,
  logsTailLines: 100_000,
} as const;
