import { addAbortSignal, Readable } from 'node:stream'
import {
  GetObjectCommand,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3'
import { checkKey, type ObjectStore, ObjectStoreError } from '../object-store.ts'

const CONNECT_MS = 10_000
const IDLE_MS = 30_000

/**
 * An object store in an S3 bucket. Region and credentials come from the AWS SDK's usual places (AWS_REGION,
 * AWS_ACCESS_KEY_ID, profiles, instance roles). With an `endpoint` (MinIO, R2, a test server) objects are addressed by
 * path. The SDK repeats what failed in passing, three times in all.
 */
export function openS3Store(bucket: string, endpoint: string | null): ObjectStore {
  const client = new S3Client({
    ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: IDLE_MS },
  })
  const description = endpoint === null ? `S3 bucket ${bucket}` : `S3 bucket ${bucket} at ${endpoint}`
  const request = async <T>(
    verb: string,
    key: string,
    signal: AbortSignal | undefined,
    send: () => Promise<T>,
  ) => {
    checkKey(key)
    signal?.throwIfAborted()
    return await send().catch((error) => {
      signal?.throwIfAborted()
      throw storeError(`Could not ${verb} ${key} in ${description}`, error)
    })
  }
  return {
    description,
    async put(key, bytes, contentType, signal) {
      const command = new PutObjectCommand({
        Bucket: bucket,
        Key: key,
        Body: bytes,
        ContentType: contentType,
      })
      await request('store', key, signal, () => client.send(command, optional(signal)))
    },
    async get(key, signal) {
      return await request('read', key, signal, async () => {
        const { Body } = await client.send(
          new GetObjectCommand({ Bucket: bucket, Key: key }),
          optional(signal),
        )
        if (!Body) throw new Error('the answer has no body')
        // The SDK listens to the signal only until the headers are there; the body may hang after that.
        if (signal && Body instanceof Readable) addAbortSignal(signal, Body)
        return await Body.transformToByteArray()
      })
    },
    async exists(key, signal) {
      return await request('look for', key, signal, async () => {
        const command = new HeadObjectCommand({ Bucket: bucket, Key: key })
        return await client.send(command, optional(signal)).then(
          () => true,
          (error) => {
            if (error instanceof S3ServiceException && error.name === 'NotFound') return false
            throw error
          },
        )
      })
    },
    close: () => client.destroy(),
  }
}

function optional(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal ? { abortSignal: signal } : {}
}

const REFUSALS: Record<string, string> = {
  NoSuchBucket: 'the bucket does not exist. Create it, or correct SCOUT_S3_BUCKET.',
  AccessDenied: 'access denied. Grant s3:GetObject, s3:PutObject and s3:ListBucket on the bucket.',
  Forbidden: 'access denied. Grant s3:GetObject, s3:PutObject and s3:ListBucket on the bucket.',
  InvalidAccessKeyId: 'the access key is not known there. Check AWS_ACCESS_KEY_ID.',
  SignatureDoesNotMatch: 'the secret key does not fit the access key. Check AWS_SECRET_ACCESS_KEY.',
  ExpiredToken: 'the session token has expired. Sign in again.',
  PermanentRedirect: 'the bucket is in another region. Check AWS_REGION.',
  CredentialsProviderError:
    'there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.',
}

function storeError(what: string, error: unknown): ObjectStoreError {
  const name = error instanceof Error ? error.name : ''
  const options = { cause: error }
  if (name === 'NoSuchKey' || name === 'NotFound') {
    const reason = 'it does not exist. It was deleted after it had been stored; store the image again.'
    return new ObjectStoreError('OBJECT_MISSING', `${what}: ${reason}`, options)
  }
  if (error instanceof Error && error.message === 'Region is missing') {
    return new ObjectStoreError('STORE_DENIED', `${what}: no region is set. Set AWS_REGION.`, options)
  }
  const refusal = REFUSALS[name]
  if (refusal) return new ObjectStoreError('STORE_DENIED', `${what}: ${refusal}`, options)
  const reason = error instanceof Error ? `${name}: ${error.message}` : String(error)
  return new ObjectStoreError(
    'STORE_UNAVAILABLE',
    `${what}: ${reason.slice(0, 300)}. Try again; if it stays, check the store.`,
    options,
  )
}
