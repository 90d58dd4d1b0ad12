/**
 * Where the bytes of captures are kept. Objects are named by the hash of their content, so an object never changes:
 * putting it twice is harmless, and two processes may put it at once.
 *
 * All functions reject with an {@link ObjectStoreError}, or with the signal's reason when `signal` has aborted.
 */
export interface ObjectStore {
  /** For people: which store this is. Never contains credentials. */
  readonly description: string
  /** Keeps the bytes under the key. When it resolves they survive a power cut; when it rejects nothing half is left. */
  put(key: string, bytes: Uint8Array, contentType: string, signal?: AbortSignal): Promise<void>
  /** The bytes under the key; `OBJECT_MISSING` when there are none. */
  get(key: string, signal?: AbortSignal): Promise<Uint8Array>
  /** Whether there is an object under the key. */
  exists(key: string, signal?: AbortSignal): Promise<boolean>
  /** Lets go of connections. */
  close(): void
}

/**
 * What went wrong in a store:
 * `OBJECT_MISSING` no object has this key, and trying again will not bring it back;
 * `OBJECT_KEY_INVALID` the key could leave the store or cannot be kept in it;
 * `STORE_FULL` there is no room;
 * `STORE_DENIED` the store refuses this user, or the bucket does not exist;
 * `STORE_UNAVAILABLE` anything else, which may pass.
 */
export type ObjectStoreErrorCode =
  | 'OBJECT_MISSING'
  | 'OBJECT_KEY_INVALID'
  | 'STORE_FULL'
  | 'STORE_DENIED'
  | 'STORE_UNAVAILABLE'

/** The one error of object stores; the message says what happened and what to do. */
export class ObjectStoreError extends Error {
  readonly code: ObjectStoreErrorCode

  constructor(code: ObjectStoreErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'ObjectStoreError'
    this.code = code
  }
}

const KEY = /^[a-z0-9][a-z0-9_-]*(?:[./][a-z0-9][a-z0-9_-]*)*$/

/**
 * Refuses keys that a folder or a bucket could not keep apart or keep inside: only lower-case letters, digits, `_`,
 * `-`, and single dots and slashes between them.
 *
 * @throws {ObjectStoreError} `OBJECT_KEY_INVALID`
 */
export function checkKey(key: string): void {
  if (key.length <= 512 && KEY.test(key)) return
  throw new ObjectStoreError(
    'OBJECT_KEY_INVALID',
    `${JSON.stringify(key.slice(0, 80))} cannot be the key of an object. Use lower-case letters, digits, _ and -, parted by single dots and slashes.`,
  )
}

/**
 * The key of a capture's image, from its content hash and its kind.
 *
 * @example
 * captureKey('ab12…', 'jpeg') // 'captures/ab/ab12….jpeg'
 */
export function captureKey(sha256: string, extension: string): string {
  return `captures/${sha256.slice(0, 2)}/${sha256}.${extension}`
}
