/** Every failure a caller can meet by name. `code` is stable; `hint` is the next step for a person. */
export type ErrorCode =
  | 'invalid_input'
  | 'not_found'
  | 'name_in_use'
  | 'already_exists'
  | 'refused'
  | 'busy'
  | 'no_master'
  | 'not_master'
  | 'no_quorum'
  | 'timeout'
  | 'unreachable'
  | 'not_admitted'
  | 'token_expired'
  | 'token_invalid'
  | 'token_other_cluster'
  | 'data_dir_locked'
  | 'data_dir_unusable'
  | 'disk_full'
  | 'log_lost'
  | 'store_failed'
  | 'port_in_use'
  | 'no_runtime'
  | 'runtime_failed'
  | 'image_missing'
  | 'too_large'
  | 'wrong_version'
  | 'aborted'
  | 'internal';

export interface ErrorOptionsEx {
  readonly hint?: string;
  readonly retryable?: boolean;
  readonly cause?: unknown;
  readonly details?: readonly FieldIssue[];
}

/** One wrong field of an input: where, what was found, what was expected. */
export interface FieldIssue {
  /** Dotted path into the document, e.g. `ports[0].container`. Empty for the document itself. */
  readonly path: string;
  readonly message: string;
}

export class TaskOrgError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly hint: string | undefined;
  readonly details: readonly FieldIssue[];
  constructor(code: ErrorCode, message: string, options: ErrorOptionsEx = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TaskOrgError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.hint = options.hint;
    this.details = options.details ?? [];
  }
}

export function toTaskOrgError(cause: unknown): TaskOrgError {
  if (cause instanceof TaskOrgError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new TaskOrgError('internal', message, { cause });
}
