import manifest from '../../package.json' with { type: 'json' };

/** Version of this program, as in package.json. */
export const VERSION: string = manifest.version;
/** Version of the words between peers; peers of adjacent versions understand each other. */
export const WIRE_VERSION = 1;
