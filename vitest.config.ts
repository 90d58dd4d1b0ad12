import { defineConfig } from 'vitest/config'

// Sources import each other through the packages' `triphase-source` door, so tests run what is written, not what was built.
const resolve = { conditions: ['triphase-source', 'node', 'import', 'module', 'default'] }

export default defineConfig({
  resolve,
  ssr: { resolve: { conditions: resolve.conditions, externalConditions: resolve.conditions } },
  test: {
    include: ['packages/*/test/**/*.test.ts', 'apps/*/test/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
