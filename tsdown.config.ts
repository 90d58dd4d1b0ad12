import { readdirSync } from 'node:fs'
import { defineConfig, type UserConfig } from 'tsdown'

/** All packages are built alike. `dist` has the same files as `src`, so what finds a file beside itself finds it in both. */
export default defineConfig(
  readdirSync('packages').map(
    (folder): UserConfig => ({
      cwd: `packages/${folder}`,
      entry: ['src/**/*.ts'],
      unbundle: true,
      format: 'esm',
      fixedExtension: false, // .js, as `exports` say
      platform: 'node',
      target: 'node22.18',
      dts: true,
      sourcemap: true,
      deps: { onlyBundle: [] }, // A dev dependency that a source imports is an error, not a part of the package.
    }),
  ),
)
