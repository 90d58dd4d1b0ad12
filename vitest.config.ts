import { defineConfig } from 'vitest/config'

// Sources import each other through the packages' `triphase-source` door, so tests run what is written, not what was
// built. Node gets these conditions too: with `import` among them, a `require` in a package would get ES modules.
const conditions = ['triphase-source', 'node']

export default defineConfig({
  ssr: { resolve: { conditions, externalConditions: conditions } },
  environments: { __vitest__: { resolve: { conditions, externalConditions: conditions } } }, // Runs the global setup.
  test: {
    include: ['packages/*/test/**/*.test.ts', 'apps/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['packages/triphase/test/support/global-setup.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
