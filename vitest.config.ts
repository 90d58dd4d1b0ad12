import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { NOT_POOLED_FILES } from './packages/triphase/test/support/not-pooled.ts'
import { NO_PGBOUNCER } from './packages/triphase/test/support/pgbouncer.ts'

// Sources import each other through the packages' `triphase-source` door, so tests run what is written, not what was
// built. Node gets these conditions too: with `import` among them, a `require` in a package would get ES modules.
const conditions = ['triphase-source', 'node']

export default defineConfig({
  ssr: { resolve: { conditions, externalConditions: conditions } },
  environments: { __vitest__: { resolve: { conditions, externalConditions: conditions } } }, // Runs the global setup.
  test: {
    globalSetup: ['packages/triphase/test/support/global-setup.ts'],
    // Most of a test's time is waiting: for processes, locks and limits.
    maxWorkers: Math.max(3, availableParallelism()),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'direct',
          include: ['packages/*/test/**/*.test.ts', 'apps/*/test/**/*.test.ts', 'test/**/*.test.ts'],
        },
      },
      // The engine's tests once more, each of their connections through a PgBouncer in transaction mode.
      {
        extends: true,
        test: {
          name: 'pooled',
          include: NO_PGBOUNCER ? [] : ['packages/triphase/test/**/*.test.ts'],
          exclude: Object.keys(NOT_POOLED_FILES).map((file) => `packages/triphase/test/${file}`),
          setupFiles: ['packages/triphase/test/support/skip-not-pooled.ts'],
          env: { TRIPHASE_TEST_POOLED: '1' },
        },
      },
    ],
  },
})
