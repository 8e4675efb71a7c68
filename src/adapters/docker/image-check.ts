import { TaskOrgError } from '../../model/errors.ts';
import { type EngineApi, EngineError, imageMissing, runtimeFailed } from './engine-api.ts';

/** An image seen is taken for present this long: a start that finds it missing says so itself. */
const SEEN_MS = 5_000;
const SEEN_LIMIT = 1_000;

/** Asks the engine for images, and not twice in a row for the same one. */
export class ImageCheck {
  readonly #api: EngineApi;
  readonly #seen = new Map<string, number>();

  constructor(api: EngineApi) {
    this.#api = api;
  }

  /** Throws image_missing, or invalid_input for what is no reference. */
  async need(image: string, signal: AbortSignal): Promise<void> {
    if ((this.#seen.get(image) ?? 0) > performance.now()) return;
    if (image === '' || /(^|\/)\.{1,2}(\/|$)/.test(image))
      throw new TaskOrgError('invalid_input', `'${image}' is not an image reference`, { hint: 'write NAME:TAG' });
    const path = `/images/${image.split('/').map(encodeURIComponent).join('/')}/json`;
    try {
      await this.#api.call({ method: 'GET', path, signal });
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) throw imageMissing(image, error);
      throw runtimeFailed(error, `image ${image}`);
    }
    if (this.#seen.size >= SEEN_LIMIT) this.#seen.clear();
    this.#seen.set(image, performance.now() + SEEN_MS);
  }

  forget(image: string): void {
    this.#seen.delete(image);
  }
}
