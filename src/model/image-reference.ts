/**
 * The full form of a Docker image reference, so that `busybox` and `docker.io/library/busybox:latest` are one image: the
 * default registry and `library/` are left out, a missing tag is `latest`. A digest stays as it is.
 */
export function normalizeImage(reference: string): string {
  const name = reference
    .trim()
    .replace(/^(?:index\.)?docker\.io\//, '')
    .replace(/^library\//, '');
  if (name.includes('@')) return name;
  const last = name.slice(name.lastIndexOf('/') + 1);
  return last.includes(':') ? name : `${name}:latest`;
}
