// A client in another language, from proto/ alone: node node_client.js HOST:PORT PROTO
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const [target, proto] = process.argv.slice(2);

const definition = loader.loadSync(proto, { keepCase: true, longs: Number, defaults: true, oneofs: true });
const { RankingService } = grpc.loadPackageDefinition(definition).moerank.v1;
const client = new RankingService(target, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("x-request-id", "node-1");
const deadline = () => ({ deadline: Date.now() + 20000 });
const request = {
  user: { integer: 1 },
  items: { integers: { values: [100, 101, 7] } },
  context: { tab: { text: "home" } },
  top_k: 2,
};

client.Rank(request, metadata, deadline(), (error, answer) => {
  if (error) throw error;
  const { model, version, order, unknown_items, request_id, arm, predictions } = answer;
  const like = predictions.like.values;
  client.Rank({ ...request, context: { planet: { text: "mars" } } }, metadata, deadline(), (refusal) => {
    const details = refusal.metadata.get("grpc-status-details-bin").length;
    const refused = { code: refusal.code, details, message: refusal.details };
    console.log(JSON.stringify({ model, version, order, unknown_items, request_id, arm, like, refused }));
    client.close();
  });
});
