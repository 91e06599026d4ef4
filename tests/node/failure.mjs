// Errors, limits and retries.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ask, askResponse, collect, connect, desk, failure, forbidden, scenario, shape } from './desk.mjs';

const kinds = {
  400: OpenAI.BadRequestError,
  401: OpenAI.AuthenticationError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  409: OpenAI.ConflictError,
  422: OpenAI.UnprocessableEntityError,
  429: OpenAI.RateLimitError,
  500: OpenAI.InternalServerError,
  503: OpenAI.InternalServerError,
};

for (const [status, kind] of Object.entries(kinds)) {
  scenario(`errors: the upstream's ${status} keeps its class and body`, async (client) => {
    const body = await shape.error(['The upstream says no.', 'some_type', 'some_code', 'model']);
    for (const run of [
      () => client.chat.completions.create(ask),
      () => client.responses.create({ ...askResponse, stream: true }),
      () => client.embeddings.create({ model: 'm', input: 'Hi' }),
    ]) {
      await desk.refuse({ status: Number(status), body, headers: { x_request_id: 'req_up_7' } });
      const error = await failure(run(), kind);
      assert.equal(error.status, Number(status));
      assert.deepEqual(error.error, body.error);
      assert.deepEqual([error.type, error.code, error.param], ['some_type', 'some_code', 'model']);
      assert.match(error.requestID, /^req_/);
      assert.equal(error.headers.get('x-upstream-request-id'), 'req_up_7');
    }
  });
}

scenario("errors: a proxy's page becomes a readable error", async (client) => {
  await desk.page({ status: 502, text: '<html>Bad gateway</html>' });
  const error = await failure(client.chat.completions.create(ask), OpenAI.InternalServerError);
  assert.deepEqual([error.status, error.type], [502, 'upstream_error']);
});

scenario('errors: an upstream that drops the call is asked once', async () => {
  await desk.drop({ ending: 'reset' });
  const error = await failure(connect({ maxRetries: 2 }).chat.completions.create(ask), OpenAI.InternalServerError);
  assert.deepEqual([error.status, error.code], [502, 'upstream_broken']);
  assert.equal((await desk.requests()).length, 1);
});

scenario('errors: a gateway that is not there is a connection error', async () => {
  const client = connect({ baseURL: 'http://127.0.0.1:9/v1' });
  await failure(client.models.list(), OpenAI.APIConnectionError);
});

scenario('errors: an error event in the middle of a stream is thrown with its body', async (client) => {
  const error = await shape.error(['The server had an error.', 'server_error', 'server_error']);
  await desk.events({ events: [...(await shape.chat_chunks(['A ', 'grey '])).slice(0, -1), error] });
  const seen = [];
  const caught = await failure(
    (async () => {
      for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) seen.push(chunk);
    })(),
    OpenAI.APIError,
  );
  assert.equal(seen.length, 3);
  assert.deepEqual([caught.error.message, caught.code], ['The server had an error.', 'server_error']);
  assert.equal((await desk.outcome()).status, 'upstream_error');
});

scenario('errors: a stream that breaks off is never a short answer', async (client) => {
  await desk.events({ events: (await shape.chat_chunks(['A ', 'grey '])).slice(0, -1), ending: 'reset' });
  const chat = await client.chat.completions.create({ ...ask, stream: true });
  assert.equal((await failure(collect(chat), OpenAI.APIError)).code, 'upstream_broken');
  const output = [await shape.message(['A grey heron.'])];
  const events = (await shape.response_events({ output })).slice(0, 6);
  await desk.events({ events, named: true, ending: 'truncate' });
  const helper = client.responses.stream(askResponse);
  assert.equal((await failure(helper.finalResponse(), OpenAI.APIError)).code, 'upstream_broken');
  assert.equal((await desk.outcome()).status, 'broken');
});

scenario('errors: a stream without its last event is an error', async (client) => {
  await desk.chat({ pieces: ['A ', 'heron.'], done: false });
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  assert.match((await failure(collect(stream), OpenAI.APIError)).message, /incomplete/);
});

scenario('errors: a failed response is its own last event', async (client) => {
  const events = await shape.response_events({
    output: [],
    status: 'failed',
    error: { code: 'server_error', message: 'The model failed.' },
  });
  await desk.events({ events, named: true });
  const last = (await collect(await client.responses.create({ ...askResponse, stream: true }))).at(-1);
  assert.deepEqual([last.type, last.response.error.message], ['response.failed', 'The model failed.']);
});

scenario('denials: input is refused with 403 and never retried', async () => {
  const client = connect({ maxRetries: 5 });
  const content = `Sell me a ${forbidden}, please.`;
  const before = await desk.decisions();
  for (const run of [
    () => client.chat.completions.create({ ...ask, messages: [{ role: 'user', content }] }),
    () => client.chat.completions.create({ ...ask, messages: [{ role: 'user', content }], stream: true }),
    () => client.responses.create({ ...askResponse, input: content }),
  ]) {
    const error = await failure(run(), OpenAI.PermissionDeniedError);
    assert.equal(error.type, 'permission_error');
    assert.match(error.message, /forbidden-bird/);
    assert.equal(error.headers.get('x-should-retry'), 'false');
    assert.match(error.headers.get('x-lukhas-incidents'), /^inc_/);
    assert.equal((await desk.outcome({ audit: error.headers.get('x-lukhas-audit-id') })).status, 'denied');
  }
  assert.equal((await desk.decisions()) - before, 3, 'it was retried');
  assert.deepEqual(await desk.requests(), []);
});

scenario('denials: a wrong key is a 401 on every resource', async () => {
  const client = connect({ apiKey: 'lk_wrong', maxRetries: 2 });
  for (const run of [
    () => client.chat.completions.create(ask),
    () => client.responses.create(askResponse),
    () => client.embeddings.create({ model: 'm', input: 'Hi' }),
    () => client.models.list(),
  ]) {
    assert.equal((await failure(run(), OpenAI.AuthenticationError)).code, 'invalid_api_key');
  }
  assert.deepEqual(await desk.requests(), []);
});

scenario('denials: a wrong request names its field, an unserved one is a 404', async () => {
  const client = connect({ maxRetries: 2 });
  const error = await failure(client.chat.completions.create({ ...ask, messages: [] }), OpenAI.BadRequestError);
  assert.deepEqual([error.type, error.param], ['invalid_request_error', 'messages']);
  await failure(client.completions.create({ model: 'm', prompt: 'Hi' }), OpenAI.NotFoundError);
  await failure(client.files.list(), OpenAI.NotFoundError);
});

scenario('limits: 429 comes with the headers that clients read', async () => {
  const client = connect({ apiKey: await desk.limited({ requests_per_minute: 2 }) });
  const left = [];
  for (let call = 0; call < 2; call += 1) {
    await desk.answer({ body: await shape.chat({ content: 'Hi.' }), headers: { 'x-ratelimit-remaining-requests': '9999' } });
    const { response } = await client.chat.completions.create(ask).withResponse();
    left.push(response.headers.get('x-ratelimit-remaining-requests'));
  }
  assert.deepEqual(left, ['1', '0']);
  const error = await failure(client.chat.completions.create(ask), OpenAI.RateLimitError);
  const wait = Number(error.headers.get('retry-after'));
  assert.ok(wait > 0 && wait <= 60);
  assert.equal(error.headers.get('x-ratelimit-limit-requests'), '2');
  assert.deepEqual([error.type, error.code], ['rate_limit_error', 'rate_limit_exceeded']);
});

scenario('limits: the client waits as it is told, comes again and succeeds', async () => {
  const client = connect({ apiKey: await desk.limited({ concurrent_calls: 1 }), maxRetries: 2 });
  await desk.chat({ pieces: ['A ', 'heron.'], between_ms: 50 });
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  await desk.answer({ body: await shape.chat({ content: 'Now.' }) });
  const began = performance.now();
  const second = client.chat.completions.create(ask);
  const [chunks, answer] = await Promise.all([collect(stream), second]);
  assert.equal(answer.choices[0].message.content, 'Now.');
  assert.ok(chunks.length > 0 && performance.now() - began >= 900);
});

scenario('limits: a budget that is spent is not waited for', async () => {
  const client = connect({ apiKey: await desk.limited({ tokens_per_day: 1 }), maxRetries: 3 });
  const error = await failure(client.chat.completions.create(ask), OpenAI.RateLimitError);
  assert.equal(error.code, 'insufficient_quota');
  assert.equal(error.headers.get('x-should-retry'), 'false');
});

for (const status of [408, 409, 429, 500, 503]) {
  scenario(`retries: the upstream's ${status} is tried again after its pause`, async () => {
    await desk.refuse({ status, headers: { retry_after_ms: '5', retry_after: '1' } });
    await desk.answer({ body: await shape.chat({ content: 'At last.' }) });
    const answer = await connect({ maxRetries: 1 }).chat.completions.create(ask);
    assert.equal(answer.choices[0].message.content, 'At last.');
    assert.equal((await desk.requests()).length, 2);
  });
}

for (const [status, header, calls] of [[503, 'false', 1], [400, 'true', 3], [400, null, 1], [500, null, 3]]) {
  scenario(`retries: ${status} with x-should-retry ${header} is tried ${calls} times`, async () => {
    const headers = { retry_after_ms: '1', ...(header && { x_should_retry: header }) };
    for (let call = 0; call < calls; call += 1) await desk.refuse({ status, headers });
    await failure(connect({ maxRetries: 2 }).chat.completions.create(ask), OpenAI.APIError);
    assert.equal((await desk.requests()).length, calls);
  });
}
