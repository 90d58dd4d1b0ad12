import type { ObjectStore } from '../object-store.ts'
import type { StoreChoice } from '../settings.ts'
import { openFolderStore } from './folder.ts'
import { openS3Store } from './s3.ts'

/** Opens the store that the settings name. Nothing is written and nothing is asked before the first use. */
export function openObjectStore(choice: StoreChoice): ObjectStore {
  return choice.kind === 's3' ? openS3Store(choice.bucket, choice.endpoint) : openFolderStore(choice.folder)
}
