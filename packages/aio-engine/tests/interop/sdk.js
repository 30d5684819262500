// Worker and client of durabletask's JavaScript SDK, on the engine whose address is the argument.
// Prints one line of JSON: what came of each orchestration, by name.
const { TaskHubGrpcClient, TaskHubGrpcWorker, whenAll, EntityInstanceId, TaskEntity, NoOpLogger } =
  require("@microsoft/durabletask-js");

const SECONDS = 30;
const options = { hostAddress: process.argv[2], logger: new NoOpLogger() };

class Counter extends TaskEntity {
  initializeState() {
    return { n: 0 };
  }
  add(amount) {
    this.state.n += amount;
    return this.state.n;
  }
}

const hello = async (_, name) => `Hello, ${name}!`;
const boom = async () => {
  throw new Error("boom");
};

const orchestrators = {
  chain: async function* (ctx, count) {
    const results = [];
    for (let i = 0; i < count; i++) results.push(yield ctx.callActivity(hello, i));
    return results;
  },
  fanOut: async function* (ctx, count) {
    const calls = [...Array(count).keys()].map((i) => ctx.callActivity(hello, i));
    return (yield whenAll(calls)).length;
  },
  event: async function* (ctx) {
    return yield ctx.waitForExternalEvent("go");
  },
  timer: async function* (ctx) {
    yield ctx.createTimer(new Date(ctx.currentUtcDateTime.getTime() + 300));
    return "woke";
  },
  parent: async function* (ctx) {
    return yield ctx.callSubOrchestrator("chain", 2);
  },
  failure: async function* (ctx) {
    try {
      yield ctx.callActivity(boom);
    } catch (error) {
      return `caught ${error.message}`;
    }
  },
  again: async function* (ctx, round) {
    if (round < 3) ctx.continueAsNew(round + 1, false);
    else return round;
  },
  entity: async function* (ctx) {
    const id = new EntityInstanceId("Counter", "k");
    ctx.entities.signalEntity(id, "add", 5);
    return yield ctx.entities.callEntity(id, "add", 2);
  },
};

async function main() {
  const worker = new TaskHubGrpcWorker(options);
  for (const [name, orchestrator] of Object.entries(orchestrators)) worker.addNamedOrchestrator(name, orchestrator);
  worker.addActivity(hello);
  worker.addActivity(boom);
  worker.addNamedEntity("Counter", () => new Counter());
  await worker.start();
  const client = new TaskHubGrpcClient(options);
  const found = {};

  const start = async (name, input) => {
    const id = await client.scheduleNewOrchestration(name, input);
    await client.waitForOrchestrationStart(id, false, SECONDS);
    return id;
  };
  const end = async (name, id) => {
    const state = await client.waitForOrchestrationCompletion(id, true, SECONDS);
    found[name] = [state.runtimeStatus, state.serializedOutput ?? null];
  };

  const chain = await start("chain", 3);
  await end("chain", chain);
  const event = await start("event");
  await client.raiseOrchestrationEvent(event, "go", { x: 1 });
  await end("event", event);
  const inputs = { fanOut: 30, timer: null, parent: null, failure: null, again: 0, entity: null };
  for (const [name, input] of Object.entries(inputs)) await end(name, await start(name, input));

  const terminated = await start("event");
  await client.suspendOrchestration(terminated);
  await client.resumeOrchestration(terminated);
  await client.terminateOrchestration(terminated, "bye");
  await end("terminated", terminated);

  found.history = (await client.getOrchestrationHistory(chain)).length;
  found.entities = [];
  for await (const each of client.getEntities({})) found.entities.push([each.id.toString(), each.state]);
  found.purged = (await client.purgeOrchestration(chain)).deletedInstanceCount;
  console.log(JSON.stringify(found));
  await worker.stop();
  await client.stop();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
