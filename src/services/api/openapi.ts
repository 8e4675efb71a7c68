import { type TSchema, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { TaskDocument } from '../../model/task-document-schema.ts';
import { ErrorView } from './schemas.ts';

// How routes describe themselves: one schema each for the check, the OpenAPI document and the client's types.

/** A body that its route checks itself (task documents, streams): described here, not validated. */
const CHECKED_BY_ROUTE = 'x-checked-by-route';

export const errors = { '4xx': ErrorView, '5xx': ErrorView };
export const TaskParam = Type.Object({
  task: Type.String({ description: 'name, id, or a unique start or end of the id (6 characters or more)' }),
});
export const NodeParam = Type.Object({
  node: Type.String({ description: 'name, id, or a unique start or end of the id (6 characters or more)' }),
});
/** A query string; unknown names are refused. */
export const query = <P extends Parameters<typeof Type.Object>[0]>(properties: P) =>
  Type.Object(properties, { additionalProperties: false });

/** A body or answer that is a stream of bytes. */
export const bytesOf = (contentType: string, description: string) => ({
  description,
  content: { [contentType]: { schema: { type: 'string', format: 'binary', [CHECKED_BY_ROUTE]: true } } },
});

const JSON_SCHEMA_WORDS = new Set([
  'type',
  'properties',
  'required',
  'items',
  'anyOf',
  'const',
  'pattern',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'description',
  'examples',
  'additionalProperties',
  'patternProperties',
]);

/** The task document's schema without the words only our own checker knows. */
function plain(schema: unknown, isWord = true): unknown {
  if (Array.isArray(schema)) return schema.map((s) => plain(s));
  if (schema === null || typeof schema !== 'object') return schema;
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key]) => !isWord || JSON_SCHEMA_WORDS.has(key))
      .map(([key, value]) => [
        key,
        key === 'properties' || key === 'patternProperties' ? plain(value, false) : plain(value),
      ]),
  );
}
export const TaskDocumentBody = { ...(plain(TaskDocument) as Record<string, unknown>), [CHECKED_BY_ROUTE]: true };

/** Query strings are text: `true` and `false` become truth values and decimal numbers numbers, where the schema wants them. */
function fromText(schema: Record<string, unknown>, data: unknown): unknown {
  const properties = (schema.properties ?? {}) as Record<string, { readonly type?: unknown }>;
  if (data === null || typeof data !== 'object') return data;
  return Object.fromEntries(
    Object.entries(data).map(([key, value]: [string, unknown]) => {
      const type = Object.hasOwn(properties, key) ? properties[key]?.type : undefined;
      if (type === 'boolean' && (value === 'true' || value === 'false')) return [key, value === 'true'];
      if ((type === 'integer' || type === 'number') && typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value))
        return [key, Number(value)];
      return [key, value];
    }),
  );
}

/** Fastify's validator: query strings and path parameters are converted from text first, bodies must be as they are. */
export function compileValidator({ schema, httpPart }: { readonly schema: unknown; readonly httpPart?: string }) {
  const s = schema as TSchema & Record<string, unknown>;
  if (s[CHECKED_BY_ROUTE] === true) return () => true;
  const check = Compile(s);
  return (data: unknown) => {
    const value: unknown = httpPart === 'body' ? data : fromText(s, data);
    if (check.Check(value)) return { value };
    const found = [...check.Errors(value)].slice(0, 16);
    return {
      error: found.map((e) => ({
        keyword: e.keyword,
        instancePath: e.instancePath,
        schemaPath: e.schemaPath,
        params: e.params as Record<string, unknown>,
        message: e.message,
      })),
    };
  };
}
