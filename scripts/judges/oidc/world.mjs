// The server as its clients know it: who is registered there, how it is asked, what earlier checks have got.

import { createRemoteJWKSet } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { authorize } from '../../lib/browser.mjs'
import { equal, from, holds } from '../../lib/checks.mjs'

export const ISSUER = process.env.AUSPEX_URL
export const ELSEWHERE = 'https://client.example.org/callback' // nobody is there: the browser's request is enough
export const PERSON = { username: 'scientist', password: 'correct horse battery staple' }
export const insecure = { [oauth.allowInsecureRequests]: true } // loopback has no TLS
const REQUEST_MS = 10_000

export const state = {} // what one check leaves for the next

export async function api(method, path, headers, body) {
  const response = await fetch(ISSUER + path, {
    method,
    headers: { ...headers, ...(body && { 'Content-Type': 'application/json' }) },
    body: body && JSON.stringify(body),
    redirect: 'manual',
    signal: AbortSignal.timeout(REQUEST_MS),
  })
  return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) }
}

export const asAdmin = { 'X-API-Key': process.env.AUSPEX_KEY }

export async function create(path, body) {
  const answer = await api('POST', path, asAdmin, body)
  equal(answer.status, 201, `${path}: status, ${JSON.stringify(answer.body)}`)
  return answer.body
}

export async function statusOf(token, path = '/v1/me') {
  return (await api('GET', path, { Authorization: `Bearer ${token}` })).status
}

export async function form(path, fields, headers = {}) {
  const response = await fetch(ISSUER + path, {
    method: 'POST',
    headers,
    body: new URLSearchParams(fields),
    redirect: 'manual',
    signal: AbortSignal.timeout(REQUEST_MS),
  })
  return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) }
}

export async function prepare(home, beyond) {
  Object.assign(state, { home, beyond })
  await create('/v1/users', {
    name: 'Data Scientist',
    email: 'scientist@example.org',
    username: PERSON.username,
    password: PERSON.password,
    roles: ['data-scientist'],
  })
  state.notebook = await create('/v1/oauth-clients', {
    name: 'Notebook of the team',
    redirect_uris: ['http://127.0.0.1/callback', 'com.example.notebook:/callback'],
    post_logout_redirect_uris: ['http://127.0.0.1/bye'],
    grant_types: ['authorization_code', 'refresh_token'],
    scopes: ['openid', 'profile', 'email', 'offline_access', 'predict', 'models:read'],
    public: true,
  })
  holds(!state.notebook.client_secret, 'a public client got a secret')
  state.dashboard = await create('/v1/oauth-clients', {
    name: 'Dashboard',
    redirect_uris: [ELSEWHERE],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    scopes: ['openid', 'predict', 'models:read'],
    public: false,
  })
  holds(state.dashboard.client_secret, 'a confidential client got no secret')
  state.other = await create('/v1/oauth-clients', {
    name: 'Another service',
    redirect_uris: [],
    grant_types: ['client_credentials'],
    scopes: ['predict'],
    public: false,
  })
  state.loopback = `http://127.0.0.1:${home.port}/callback`
}

export async function notebookRequest(more = {}) {
  const verifier = openid.randomPKCECodeVerifier()
  const parameters = {
    redirect_uri: state.loopback,
    scope: 'openid profile email offline_access predict',
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state: openid.randomState(),
    nonce: openid.randomNonce(),
    ...more,
  }
  const url = openid.buildAuthorizationUrl(from(state.publicConfig, 'the metadata'), parameters)
  for (const [name, value] of Object.entries(more)) if (value === null) url.searchParams.delete(name)
  return { url, verifier, ...parameters }
}

export function redeem(request, back, more = {}) {
  return openid.authorizationCodeGrant(from(state.publicConfig, 'the metadata'), back, {
    pkceCodeVerifier: request.verifier,
    expectedState: request.state,
    expectedNonce: request.nonce,
    idTokenExpected: true,
    ...more,
  })
}

export async function notebookTokens(context, more) {
  const request = await notebookRequest(more)
  const back = await authorize(context, request.url, state.loopback, PERSON)
  return redeem(request, back)
}

export function keysOfServer() {
  return createRemoteJWKSet(new URL(from(state.as, 'the metadata').jwks_uri))
}

export function confidentialConfig(client, method = openid.ClientSecretPost) {
  const { client_id: id, client_secret: secret } = from(client, 'the client')
  return openid.discovery(new URL(ISSUER), id, secret, method(secret), { execute: [openid.allowInsecureRequests] })
}
