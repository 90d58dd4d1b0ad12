import path from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { readSettings, SettingsError } from '../src/settings.ts'

const root = path.resolve(import.meta.dirname, '../../..')

function faultsOf(environment: Record<string, string>): Record<string, string> {
  try {
    readSettings(environment)
  } catch (error) {
    if (error instanceof SettingsError) {
      for (const { variable, message } of error.faults)
        expect(error.message).toContain(`${variable}: ${message}`)
      return Object.fromEntries(error.faults.map(({ variable, message }) => [variable, message]))
    }
    throw error
  }
  return {}
}

describe('settings', () => {
  test('have defaults for everything', () => {
    expect(readSettings({})).toEqual({
      model: { provider: 'detector' },
      store: { kind: 'folder', folder: path.join(root, '.scout/objects') },
      concurrency: 12,
      appPool: 10,
      enginePool: 6,
      callTimeoutMs: 150_000,
      databaseUrl: null,
      databaseDirectUrl: null,
      dataFolder: path.join(root, '.scout'),
    })
  })

  test('are read from the environment, and frozen', () => {
    const settings = readSettings({
      SCOUT_MODEL: 'compatible:llava:13b',
      SCOUT_MODEL_URL: 'http://localhost:11434/v1/',
      SCOUT_CONCURRENCY: '40',
      SCOUT_APP_POOL: '3',
      SCOUT_ENGINE_POOL: '2',
      SCOUT_CALL_TIMEOUT: '1.5s',
      SCOUT_DATA: '/data',
      SCOUT_S3_BUCKET: 'captures',
      SCOUT_S3_ENDPOINT: 'https://minio.internal:9000',
      DATABASE_URL: 'postgres://scout:hunter2@db/scout',
      DATABASE_DIRECT_URL: 'postgresql://scout:hunter2@db:5433/scout',
    })
    expect(settings).toMatchObject({
      model: { provider: 'compatible', model: 'llava:13b', url: 'http://localhost:11434/v1', key: null },
      store: { kind: 's3', bucket: 'captures', endpoint: 'https://minio.internal:9000' },
      ...{ concurrency: 40, appPool: 3, enginePool: 2, callTimeoutMs: 1_500, dataFolder: '/data' },
    })
    expect(settings.databaseUrl?.reveal()).toBe('postgres://scout:hunter2@db/scout')
    expect(settings.databaseDirectUrl?.reveal()).toBe('postgresql://scout:hunter2@db:5433/scout')
    expect(
      Object.isFrozen(settings) && Object.isFrozen(settings.model) && Object.isFrozen(settings.store),
    ).toBe(true)
  })

  test('a variable set to nothing is not set', () => {
    expect(readSettings({ SCOUT_MODEL: '', SCOUT_CONCURRENCY: ' ' }).concurrency).toBe(12)
  })

  test('all faults are named at once, with what is allowed', () => {
    const faults = faultsOf({
      SCOUT_MODEL: 'gpt-5',
      SCOUT_CONCURRENCY: '0',
      SCOUT_APP_POOL: 'many',
      SCOUT_ENGINE_POOL: '1',
      SCOUT_CALL_TIMEOUT: '150',
      SCOUT_S3_BUCKET: 'No Bucket',
      SCOUT_S3_ENDPOINT: 'minio:9000',
      DATABASE_URL: 'mysql://db',
      DATABASE_DIRECT_URL: 'postgres:db',
    })
    expect(faults).toEqual({
      SCOUT_MODEL: expect.stringContaining('openai:MODEL, anthropic:MODEL or compatible:MODEL'),
      SCOUT_CONCURRENCY: 'must be a whole number from 1 to 1000, not "0".',
      SCOUT_APP_POOL: 'must be a whole number from 1 to 200, not "many".',
      SCOUT_ENGINE_POOL: 'must be a whole number from 2 to 200, not "1".',
      SCOUT_CALL_TIMEOUT: expect.stringContaining('such as 150s, not "150"'),
      SCOUT_S3_BUCKET: expect.stringContaining('bucket name'),
      SCOUT_S3_ENDPOINT: expect.stringContaining('http://'),
      DATABASE_URL: expect.stringContaining('postgres://'),
      DATABASE_DIRECT_URL: expect.stringContaining('postgres://'),
    })
  })

  test.each([
    ['0s', false],
    ['290s', true],
    ['291s', false],
    ['4m', true],
    ['5m', false],
    ['250ms', true],
    ['-1s', false],
    ['1e3s', false],
  ])('SCOUT_CALL_TIMEOUT=%s is allowed: %s', (SCOUT_CALL_TIMEOUT, allowed) => {
    expect(Object.keys(faultsOf({ SCOUT_CALL_TIMEOUT }))).toEqual(allowed ? [] : ['SCOUT_CALL_TIMEOUT'])
  })

  test('what a choice needs must be there, and what it does not use must not', () => {
    expect(Object.keys(faultsOf({ SCOUT_MODEL: 'openai:gpt-5' }))).toEqual(['SCOUT_MODEL_KEY'])
    expect(Object.keys(faultsOf({ SCOUT_MODEL: 'anthropic:claude' }))).toEqual(['SCOUT_MODEL_KEY'])
    expect(Object.keys(faultsOf({ SCOUT_MODEL: 'compatible:llava' }))).toEqual(['SCOUT_MODEL_URL'])
    expect(Object.keys(faultsOf({ SCOUT_MODEL_KEY: 'sk-1', SCOUT_MODEL_URL: 'http://localhost' }))).toEqual([
      'SCOUT_MODEL_URL',
      'SCOUT_MODEL_KEY',
    ])
    expect(Object.keys(faultsOf({ SCOUT_S3_ENDPOINT: 'http://localhost' }))).toEqual(['SCOUT_S3_ENDPOINT'])
    expect(Object.keys(faultsOf({ DATABASE_DIRECT_URL: 'postgres://db' }))).toEqual(['DATABASE_DIRECT_URL'])
  })

  test('an unknown SCOUT_ variable is refused with the name that was probably meant', () => {
    const faults = faultsOf({
      SCOUT_CONCURENCY: '4',
      SCOUT_ENGINEPOOL: '4',
      SCOUT_LOG_LEVEL_OF_ALL: 'x',
      OTHER: 'x',
    })
    expect(faults).toEqual({
      SCOUT_CONCURENCY: expect.stringContaining('Did you mean SCOUT_CONCURRENCY?'),
      SCOUT_ENGINEPOOL: expect.stringContaining('Did you mean SCOUT_ENGINE_POOL?'),
      SCOUT_LOG_LEVEL_OF_ALL: expect.stringContaining('Known: SCOUT_MODEL, '),
    })
  })

  test('secrets appear in no message and in no printed settings', () => {
    const settings = readSettings({
      SCOUT_MODEL: 'openai:m',
      SCOUT_MODEL_KEY: 'sk-hunter2',
      DATABASE_URL: 'postgres://u:hunter2@db',
    })
    expect(
      JSON.stringify(settings) + inspect(settings, { depth: 9 }) + String(settings.databaseUrl),
    ).not.toContain('hunter2')
    const faults = faultsOf({
      SCOUT_MODEL: 'sk-hunter2',
      SCOUT_MODEL_KEY: 'hunter2 hunter2',
      SCOUT_MODEL_URL: 'http://me:hunter2@localhost/?key=hunter2',
      DATABASE_URL: 'http://u:hunter2@db',
      SCOUT_KEY: 'hunter2',
    })
    expect(Object.keys(faults).sort()).toEqual([
      'DATABASE_URL',
      'SCOUT_KEY',
      'SCOUT_MODEL',
      'SCOUT_MODEL_KEY',
      'SCOUT_MODEL_URL',
    ])
    expect(JSON.stringify(faults)).not.toContain('hunter2')
  })
})
