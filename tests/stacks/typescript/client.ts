// A producer for Tokenworks, written by hand: it knows the .proto files and nothing else of ours.
//
//   TOKENWORKS_API_KEY=… node build/client.js TARGET PROTO_FOLDER ACCOUNT BATCHES ROWS
//
// Streams BATCHES numbered batches of ROWS rows each. On purpose it sends one batch twice and lets
// one go missing, so that the meter asks it to go back. Prints what it sent as JSON once the meter
// has all of it on disk; ends with 1 when the meter refuses or does not answer.
import { randomBytes } from "node:crypto";
import { join } from "node:path";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

interface UsageEvent {
  endTime: { seconds: number; nanos: number };
  durationMs: number;
  dimensions: { account: string; model: string; tier: string; mode: string };
  tokens: { tokenClass: string; count: number }[];
  finish: string;
  requestId: string;
  reportedInputCount: number;
  reportedOutputCount: number;
}

interface UsageBatch {
  sequence: number;
  rows: { events: UsageEvent[] };
}

type StreamUsageRequest =
  | { open: { producer: string; instance: Buffer; firstSequence: number } }
  | { batch: UsageBatch };

// 64-bit numbers arrive as text.
interface StreamUsageResponse {
  message?: "opened" | "ack";
  opened?: { nextSequence: string; batchesInFlightMax: number };
  ack?: { sequence: string; durableSequence: string; setAsideCount: number };
}

interface MeterClient extends grpc.Client {
  streamUsage(
    metadata: grpc.Metadata,
  ): grpc.ClientDuplexStream<StreamUsageRequest, StreamUsageResponse>;
}

type MeterClientConstructor = new (
  target: string,
  credentials: grpc.ChannelCredentials,
) => MeterClient;

interface Sent {
  repeated_count: number;
  went_back_count: number;
  set_aside_count: number;
  events: {
    account: string;
    tier: string;
    model: string;
    mode: string;
    classes: Record<string, number>;
    end_time_ms: number;
    request_id: string;
  }[];
}

const REPEATED_SEQUENCE = 2;
const MISSING_SEQUENCE = 4;
const DEADLINE_MS = 60_000;

function main(): void {
  const [target, protoFolder, account, batchCount, rowCount] = process.argv.slice(2);
  const apiKey = process.env["TOKENWORKS_API_KEY"];
  if (!target || !protoFolder || !account || !batchCount || !rowCount || !apiKey) {
    fail("usage: TOKENWORKS_API_KEY=… client.js TARGET PROTO_FOLDER ACCOUNT BATCHES ROWS");
  }
  const batches = Array.from({ length: Number(batchCount) }, (_, index) =>
    makeBatch(index + 1, Number(rowCount), account),
  );
  setTimeout(() => fail("not all batches were acknowledged in time"), DEADLINE_MS).unref();
  stream(connect(target, protoFolder), apiKey, batches);
}

function connect(target: string, protoFolder: string): MeterClient {
  const definition = loader.loadSync(join("tokenworks", "meter", "v1", "meter_service.proto"), {
    includeDirs: [protoFolder],
    defaults: true,
    longs: String,
    enums: String,
    oneofs: true,
  });
  let at: unknown = grpc.loadPackageDefinition(definition);
  for (const name of ["tokenworks", "meter", "v1", "MeterService"]) {
    at = (at as Record<string, unknown>)[name];
  }
  const Client = at as MeterClientConstructor;
  return new Client(target, grpc.credentials.createInsecure());
}

// Sends every batch in order, no more ahead of the acks than the meter allows, until all are on disk.
function stream(client: MeterClient, apiKey: string, batches: UsageBatch[]): void {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${apiKey}`);
  const call = client.streamUsage(metadata);
  let next = 1;
  let acknowledged = 0;
  let inFlightMax = 0;
  let openedCount = 0;
  let setAsideCount = 0;
  let hasRepeated = false;
  let hasSkipped = false;

  function pump(): void {
    while (next <= batches.length && next <= acknowledged + inFlightMax) {
      if (next === MISSING_SEQUENCE && !hasSkipped) {
        hasSkipped = true; // as if it had been lost: the meter will send us back to it
      } else {
        send(next);
      }
      next += 1;
    }
  }

  function send(sequence: number): void {
    const batch = batches[sequence - 1];
    if (batch === undefined) {
      fail(`the meter asks for batch ${sequence}, which never was`);
    }
    call.write({ batch });
    if (sequence === REPEATED_SEQUENCE && !hasRepeated) {
      hasRepeated = true;
      call.write({ batch });
    }
  }

  call.on("data", (response: StreamUsageResponse) => {
    if (response.opened !== undefined) {
      openedCount += 1;
      inFlightMax = response.opened.batchesInFlightMax;
      next = Number(response.opened.nextSequence);
      acknowledged = next - 1;
    }
    if (response.ack !== undefined) {
      acknowledged = Math.max(acknowledged, Number(response.ack.sequence));
      setAsideCount += response.ack.setAsideCount;
      if (Number(response.ack.durableSequence) >= batches.length) {
        call.end();
        return;
      }
    }
    pump();
  });
  call.on("error", (error: grpc.ServiceError) => fail(`${error.code} ${error.details}`));
  call.on("end", () => {
    if (acknowledged < batches.length) {
      fail(`the meter hung up after batch ${acknowledged}`);
    }
    print({
      repeated_count: hasRepeated ? 1 : 0,
      went_back_count: openedCount - 1,
      set_aside_count: setAsideCount,
      events: batches.flatMap((batch) => batch.rows.events.map(toTruth)),
    });
    client.close();
  });
  call.write({
    open: { producer: "typescript", instance: randomBytes(16), firstSequence: 1 },
  });
}

function makeBatch(sequence: number, rowCount: number, account: string): UsageBatch {
  const events = Array.from({ length: rowCount }, (_, index) => makeEvent(sequence, index, account));
  return { sequence, rows: { events } };
}

// Numbers that differ from event to event, so that one that is lost, doubled or misread shows.
function makeEvent(sequence: number, index: number, account: string): UsageEvent {
  const serial = sequence * 1_000 + index;
  const endMs = Date.now() - serial;
  const counts = { INPUT: serial * 7, CACHE_READ: serial % 5, OUTPUT: serial * 3, REASONING: index };
  return {
    endTime: { seconds: Math.floor(endMs / 1_000), nanos: (endMs % 1_000) * 1_000_000 },
    durationMs: serial % 1_000,
    dimensions: {
      account,
      model: serial % 3 === 0 ? "large" : "small",
      tier: serial % 2 === 0 ? "high" : "free",
      mode: serial % 7 === 0 ? "MODE_BATCH" : "MODE_ONLINE",
    },
    tokens: Object.entries(counts).map(([name, count]) => ({
      tokenClass: `TOKEN_CLASS_${name}`,
      count,
    })),
    finish: "FINISH_COMPLETED",
    requestId: `typescript-${serial}`,
    reportedInputCount: counts.INPUT + counts.CACHE_READ,
    reportedOutputCount: counts.OUTPUT + counts.REASONING,
  };
}

function toTruth(event: UsageEvent): Sent["events"][number] {
  const { account, tier, model, mode } = event.dimensions;
  const classes = event.tokens.map(({ tokenClass, count }): [string, number] => [
    tokenClass.replace("TOKEN_CLASS_", "").toLowerCase(),
    count,
  ]);
  return {
    account,
    tier,
    model,
    mode: mode.replace("MODE_", "").toLowerCase(),
    classes: Object.fromEntries(classes),
    end_time_ms: event.endTime.seconds * 1_000 + event.endTime.nanos / 1_000_000,
    request_id: event.requestId,
  };
}

function print(sent: Sent): void {
  process.stdout.write(`${JSON.stringify(sent)}\n`);
}

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

main();
