// What the tokens are worth, to clients of both kinds and to those who know only the key set.

import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { asStranger, authorize } from '../../lib/browser.mjs'
import { equal, from, holds, refusal } from '../../lib/checks.mjs'
import {
  ELSEWHERE,
  ISSUER,
  PERSON,
  api,
  confidentialConfig,
  form,
  insecure,
  keysOfServer,
  notebookTokens,
  state,
  statusOf,
} from './world.mjs'

export async function accessToken() {
  const { access_token: token, token_type: type, expires_in: seconds, scope } = from(state.tokens, 'the access token')
  equal(type, 'bearer', 'token type')
  holds(seconds > 0 && seconds <= 86_400, `expires in ${seconds} s`)
  const { payload, protectedHeader } = await jwtVerify(token, keysOfServer(), {
    issuer: ISSUER,
    typ: 'at+jwt',
    requiredClaims: ['sub', 'aud', 'exp', 'iat', 'nbf', 'jti', 'scope', 'client_id'],
  })
  equal(payload.client_id, state.notebook.client_id, 'client_id')
  equal(payload.exp - payload.iat, seconds, 'seconds between iat and exp')
  equal(scope?.split(' ').includes('predict') ?? true, true, 'predict among the scopes of the answer')
  const scopes = payload.scope.split(' ')
  holds(scopes.includes('predict') && !scopes.includes('models:read'), `scopes ${payload.scope}`)
  holds(![payload.aud].flat().includes(state.notebook.client_id), 'it is meant for the client, as an ID token is')
  holds(['EdDSA', 'Ed25519', 'ES256', 'RS256'].includes(protectedHeader.alg), `alg ${protectedHeader.alg}`)
  const request = new Request(ISSUER, { headers: { Authorization: `Bearer ${token}` } })
  const claims = await oauth.validateJwtAccessToken(state.as, request, [payload.aud].flat()[0], insecure)
  equal(claims.sub, payload.sub, 'sub by oauth4webapi')
}

export async function idToken() {
  const { id_token: token } = from(state.tokens, 'the ID token')
  const { payload } = await jwtVerify(token, keysOfServer(), { issuer: ISSUER, audience: state.notebook.client_id })
  equal(payload.sub, decodeJwt(state.tokens.access_token).sub, 'sub')
  holds(payload.auth_time === undefined || Math.abs(payload.auth_time - payload.iat) < 60, 'auth_time')
  holds(decodeProtectedHeader(token).typ !== 'at+jwt', 'it is typed as an access token')
  equal(await statusOf(token), 401, 'as a key to the API')
}

export async function userinfo() {
  const { access_token: token } = from(state.tokens, 'the access token')
  const claims = await openid.fetchUserInfo(state.publicConfig, token, state.tokens.claims().sub)
  equal(claims.email, 'scientist@example.org', 'email')
  equal(claims.name, 'Data Scientist', 'name')
  const anonymous = await api('GET', '/oauth2/userinfo')
  equal(anonymous.status, 401, 'without a token')
  holds(/^Bearer/i.test(anonymous.headers.get('www-authenticate')), 'no challenge')
}

export async function scopesHold() {
  const { access_token: token } = from(state.tokens, 'the access token')
  equal(await statusOf(token, '/v1/me'), 200, '/v1/me')
  equal(await statusOf(token, '/v1/models'), 403, '/v1/models, which nobody consented to')
  equal(await statusOf(token, '/v1/users'), 403, '/v1/users')
}

export async function refresh() {
  const config = state.publicConfig
  const first = from(state.tokens, 'the refresh token').refresh_token
  const second = await openid.refreshTokenGrant(config, from(first, 'the refresh token'))
  holds(second.refresh_token && second.refresh_token !== first, 'the refresh token is the same')
  equal(await statusOf(second.access_token), 200, 'with the new access token')
  const third = await openid.refreshTokenGrant(config, second.refresh_token)
  const error = await refusal(openid.refreshTokenGrant(config, first), 'an old refresh token')
  equal(error.error, 'invalid_grant', 'error')
  const family = await refusal(openid.refreshTokenGrant(config, third.refresh_token), 'one of the same family')
  equal(family.error, 'invalid_grant', 'error for the family')
}

export async function lostReply(browser) {
  return asStranger(browser, async (context) => {
    const { refresh_token: first } = await notebookTokens(context)
    await openid.refreshTokenGrant(state.publicConfig, first)
    const again = await openid.refreshTokenGrant(state.publicConfig, first)
    equal(await statusOf(again.access_token), 200, 'with the access token of the second try')
    const wider = await refusal(
      openid.refreshTokenGrant(state.publicConfig, again.refresh_token, { scope: 'predict models:read' }),
      'a wider scope',
    )
    equal(wider.error, 'invalid_scope', 'error')
  })
}

export async function revoked(browser) {
  return asStranger(browser, async (context) => {
    const tokens = await notebookTokens(context)
    await openid.tokenRevocation(state.publicConfig, tokens.access_token, { token_type_hint: 'access_token' })
    equal(await statusOf(tokens.access_token), 401, 'with the revoked access token')
    await openid.tokenRevocation(state.publicConfig, tokens.refresh_token)
    const error = await refusal(openid.refreshTokenGrant(state.publicConfig, tokens.refresh_token), 'a revoked token')
    equal(error.error, 'invalid_grant', 'error')
    await openid.tokenRevocation(state.publicConfig, 'what nobody has issued') // RFC 7009: 200 all the same
  })
}

// A confidential client, with the other library

export async function dashboardTokens(browser) {
  const { client_id, client_secret } = from(state.dashboard, 'the client')
  const as = await oauth.processDiscoveryResponse(
    new URL(ISSUER),
    await oauth.discoveryRequest(new URL(ISSUER), { algorithm: 'oauth2', ...insecure }),
  )
  const [verifier, nonce, sent] = [
    oauth.generateRandomCodeVerifier(),
    oauth.generateRandomNonce(),
    oauth.generateRandomState(),
  ]
  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams({
    ...{ client_id, redirect_uri: ELSEWHERE, response_type: 'code', scope: 'openid predict models:read' },
    ...{
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      nonce,
      state: sent,
    },
  })
  return asStranger(browser, async (context) => {
    const back = await authorize(context, url, ELSEWHERE, PERSON)
    const client = { client_id }
    const parameters = oauth.validateAuthResponse(as, client, back, sent)
    const authentication = oauth.ClientSecretBasic(client_secret)
    const response = await oauth.authorizationCodeGrantRequest(
      as,
      client,
      authentication,
      parameters,
      ELSEWHERE,
      verifier,
      insecure,
    )
    equal(response.headers.get('cache-control'), 'no-store', 'Cache-Control')
    const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, {
      expectedNonce: nonce,
      requireIdToken: true,
    })
    await oauth.validateApplicationLevelSignature(as, response, insecure)
    return { tokens, code: back.searchParams.get('code'), verifier }
  })
}

export async function confidential(browser) {
  const { tokens } = await dashboardTokens(browser)
  state.dashboardTokens = tokens
  holds(tokens.refresh_token, 'no refresh token for a client that registered the grant')
  equal(await statusOf(tokens.access_token, '/v1/models'), 200, '/v1/models')
}

export async function introspection() {
  const { client_id, client_secret } = from(state.dashboard, 'the client')
  const config = await confidentialConfig(state.dashboard)
  const { access_token: mine, refresh_token: refresh } = from(state.dashboardTokens, 'the tokens')
  const known = await openid.tokenIntrospection(config, mine)
  equal([known.active, known.client_id, known.iss], [true, client_id, ISSUER], 'active, client_id, iss')
  equal(known.sub, decodeJwt(mine).sub, 'sub')
  equal(
    (await openid.tokenIntrospection(config, refresh, { token_type_hint: 'refresh_token' })).active,
    true,
    'a refresh token',
  )
  const foreign = from(state.tokens, 'a token of another client').access_token
  for (const token of ['what nobody has issued', foreign]) {
    equal(await openid.tokenIntrospection(config, token), { active: false }, 'of others')
  }
  const stranger = await form('/oauth2/introspect', { token: mine, client_id, client_secret: 'not the secret' })
  equal([stranger.status, stranger.body?.error], [401, 'invalid_client'], 'with a wrong secret')
  await openid.tokenRevocation(config, mine)
  equal(await openid.tokenIntrospection(config, mine), { active: false }, 'after its revocation')
}

export async function clientCredentials() {
  const { client_id } = from(state.other, 'the client')
  for (const method of [openid.ClientSecretBasic, openid.ClientSecretPost]) {
    const config = await confidentialConfig(state.other, method)
    const tokens = await openid.clientCredentialsGrant(config, { scope: 'predict' })
    holds(!tokens.refresh_token && !tokens.id_token, 'a refresh token or an ID token')
    equal(decodeJwt(tokens.access_token).client_id, client_id, 'client_id')
    equal(await statusOf(tokens.access_token, '/v1/models'), 403, '/v1/models')
    const error = await refusal(
      openid.clientCredentialsGrant(config, { scope: 'users:write' }),
      'more than it registered',
    )
    equal(error.error, 'invalid_scope', 'error')
  }
  const wrong = await form('/oauth2/token', {
    grant_type: 'client_credentials',
    client_id,
    client_secret: 'not the secret',
  })
  equal([wrong.status, wrong.body?.error], [401, 'invalid_client'], 'with a wrong secret')
  const { client_id: nobody } = state.notebook
  const open = await form('/oauth2/token', { grant_type: 'client_credentials', client_id: nobody })
  holds(
    open.status >= 400 && /^(unauthorized_client|invalid_client)$/.test(open.body?.error),
    `a public client: ${JSON.stringify(open.body)}`,
  )
}
