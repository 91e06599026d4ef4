// What every case needs: a client for the gateway, and the desk at which its upstream is scripted.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

export const { forbidden, hidden, hiddenShown, chatTools, responseTools, execTool } = JSON.parse(process.env.CONSTANTS);
export const question = [{ role: 'user', content: 'What is a heron?' }];
export const ask = { model: 'gpt-4.1-mini', messages: question };
export const askResponse = { model: 'gpt-4.1-mini', input: 'What is a heron?' };

async function command(name, args = {}) {
  const answer = await fetch(`${process.env.DESK_URL}/${name}`, { method: 'POST', body: JSON.stringify(args) });
  const value = await answer.json();
  assert.equal(answer.status, 200, `the desk refuses '${name}': ${value}`);
  return value;
}

// desk.answer({...}) sends the command 'answer'; tests/api/test_client_node.py has them all.
export const desk = new Proxy({}, { get: (_, name) => (args) => command(name, args) });

// shape.chat({content: 'Hi.'}) builds a body in OpenAI's shape; tests/api/upstream_shape.py has them all.
export const shape = new Proxy(
  {},
  {
    get: (_, name) => (args) =>
      command('shape', Array.isArray(args) ? { name, arguments: args } : { name, ...args }),
  },
);

export function connect(options = {}) {
  return new OpenAI({
    baseURL: process.env.GATEWAY_URL,
    apiKey: process.env.GATEWAY_KEY,
    maxRetries: 0,
    timeout: 50_000,
    logLevel: 'off',
    ...options,
  });
}

// One case: a clean upstream before it, and nothing left unasked for after it.
export function scenario(name, run) {
  test(name, { timeout: 60_000 }, async () => {
    await desk.clear();
    await run(connect());
    assert.equal((await desk.clear()).unused, 0, 'the case scripted answers that nobody asked for');
  });
}

// Reject with this class; returns the error for a closer look.
export async function failure(promise, kind) {
  let caught;
  await assert.rejects(promise, (error) => {
    caught = error;
    return true;
  });
  assert.ok(caught instanceof kind, `expected ${kind.name}, got ${caught?.constructor?.name}: ${caught?.message}`);
  return caught;
}

export async function collect(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

export const textOf = (chunks, index = 0) =>
  chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta.content ?? '')
    .join('');

export const sent = async () => (await desk.requests()).at(-1).body;

export const toolCall = (name, args, id) => ({
  id,
  type: 'function',
  function: { name, arguments: JSON.stringify(args) },
});
export const heron = toolCall('retrieve_knowledge', { query: 'heron', k: 3 }, 'call_1');
export const page = toolCall('open_url', { url: 'https://birds.example/heron' }, 'call_2');
export const program = toolCall('exec_code', { source: 'print(1)' }, 'call_3');
