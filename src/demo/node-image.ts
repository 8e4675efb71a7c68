import { execFileSync } from 'node:child_process';
import { readFileSync, realpathSync } from 'node:fs';
import type Docker from 'dockerode';
import { pack } from 'tar-stream';

/** Reference of the demo's image. */
export const DEMO_IMAGE = 'task-org/demo:1';
const LIBRARY = /(\/[^ ]+\.so[^ ]*)/g;

/**
 * An image without a registry: this very Node with the libraries it is linked against, imported into the engine. Returns
 * false when the engine has it already.
 */
export async function ensureDemoImage(docker: Docker): Promise<boolean> {
  const [repo, tag] = DEMO_IMAGE.split(':') as [string, string];
  if (
    await docker
      .getImage(DEMO_IMAGE)
      .inspect()
      .then(
        () => true,
        () => false,
      )
  )
    return false;
  const node = realpathSync(process.execPath);
  const files = new Map<string, string>([['/bin/node', node]]);
  for (const m of execFileSync('ldd', [node], { encoding: 'utf8' }).matchAll(LIBRARY))
    files.set(m[1] as string, realpathSync(m[1] as string));
  const tar = pack();
  void (async () => {
    for (const dir of ['data', 'tmp']) tar.entry({ name: `${dir}/`, type: 'directory', mode: 0o1777 });
    for (const [path, source] of files)
      await new Promise<void>((resolve, reject) =>
        tar.entry({ name: path.slice(1), mode: 0o755 }, readFileSync(source), (error) =>
          error ? reject(error) : resolve(),
        ),
      );
    tar.finalize();
  })().catch((error: unknown) => tar.destroy(error instanceof Error ? error : new Error(String(error))));
  const stream = (await docker.importImage(
    tar as unknown as NodeJS.ReadableStream,
    { repo, tag, changes: ['CMD ["node"]', 'ENV PATH=/bin', 'WORKDIR /data'] } as never,
  )) as unknown as NodeJS.ReadableStream;
  await new Promise<void>((resolve, reject) =>
    docker.modem.followProgress(stream, (error) => (error ? reject(error) : resolve())),
  );
  return true;
}
