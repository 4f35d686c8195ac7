// An issuer that is not ours: oidc-provider on a loopback port, for issuer.py.
//
//   issuer.mjs PORT FOLDER KID[,KID…]    the first key signs; each is made when FOLDER does not have it
//
// Beside what oidc-provider does it has POST /control {"jwks": "ok" | "broken" | "moved"}, GET /fetches,
// which counts who asked for keys, and POST /mint {"header", "claims"}, which signs anything with its key.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { SignJWT, exportJWK, generateKeyPair, importJWK } from 'jose'
import { Provider } from 'oidc-provider'

const [port, folder, kids] = process.argv.slice(2)
const ISSUER = `http://127.0.0.1:${port}`
const ELSEWHERE = 'https://client.example.org/callback'
const AUDIENCE = 'https://api.example.org'
const ROLES = { 'ml-job': ['ml-team', 'everybody'], 'other-job': ['accounting'] }

async function keyOf(kid) {
  const path = join(folder, `${kid}.json`)
  if (!existsSync(path)) {
    const alg = kid.startsWith('ec') ? 'ES256' : 'RS256'
    const { privateKey } = await generateKeyPair(alg, { extractable: true })
    writeFileSync(path, JSON.stringify({ ...(await exportJWK(privateKey)), kid, alg, use: 'sig' }))
  }
  return JSON.parse(readFileSync(path, 'utf8'))
}

const keys = await Promise.all(kids.split(',').map(keyOf))
const [signing] = keys

const provider = new Provider(ISSUER, {
  clients: [
    ...Object.keys(ROLES).map((id) => ({
      ...{ client_id: id, client_secret: 'a secret for this test', redirect_uris: [], response_types: [] },
      grant_types: ['client_credentials'],
    })),
    // Its ID tokens have the API's own name as their audience, as where both are one registration.
    ...[AUDIENCE, 'some-app'].map((id) => ({
      ...{ client_id: id, client_secret: 'a secret for this test', redirect_uris: [ELSEWHERE] },
      ...{ id_token_signed_response_alg: signing.alg, token_endpoint_auth_method: 'client_secret_post' },
    })),
  ],
  claims: { openid: ['sub', 'roles'] },
  conformIdTokenClaims: false, // all claims in the ID token too, so that nothing but its kind speaks against it
  cookies: { keys: ['a key for the cookies of this test'] },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256'] },
  extraTokenClaims: (_, token) => ({ roles: ROLES[token.clientId] ?? ['ml-team'] }),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'predict models:read',
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: signing.alg, kid: signing.kid } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, roles: ['ml-team'] }) }),
  jwks: { keys },
  scopes: ['openid', 'predict', 'models:read'],
})

const answer = provider.callback()
const fetches = { jwks: 0, moved: 0, other: 0 }
let jwks = 'ok'

createServer(async (request, response) => {
  const json = (status, body, headers = {}) => {
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers })
    response.end(JSON.stringify(body))
  }
  const { pathname } = new URL(request.url, ISSUER)
  try {
    switch (pathname) {
      case '/control':
        jwks = (await body(request)).jwks
        return json(200, { jwks })
      case '/fetches':
        return json(200, fetches)
      case '/mint': {
        const { header, claims } = await body(request)
        const key = await importJWK(signing, signing.alg)
        const crit = Object.fromEntries((header.crit ?? []).map((name) => [name, true])) // jose must know them
        const token = new SignJWT(claims).setProtectedHeader({ alg: signing.alg, kid: signing.kid, ...header })
        return json(200, { token: await token.sign(key, { crit }) })
      }
      case '/other-keys': // where only a token's own header would lead
        fetches.other += 1
        return json(200, { keys: [] })
      case '/moved':
        fetches.moved += 1
        return provider.callback()(Object.assign(request, { url: '/jwks' }), response)
      case '/jwks':
        fetches.jwks += 1
        if (jwks === 'broken') return json(500, {})
        if (jwks === 'moved') return json(302, {}, { Location: '/moved' })
    }
    return answer(request, response)
  } catch (error) {
    console.error(error)
    json(500, { error: String(error) })
  }
}).listen(Number(port), '127.0.0.1', () => console.log(`issuer ${ISSUER} is ready`))

async function body(request) {
  const parts = []
  for await (const part of request) parts.push(part)
  return JSON.parse(Buffer.concat(parts).toString())
}

process.on('SIGTERM', () => process.exit(0))
