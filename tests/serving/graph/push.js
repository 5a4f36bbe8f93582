// Pushes one feature of a user to Redis without any library: what a writer in another language has to do.
// node push.js PORT USER NAME NUMBER AT_MS
const net = require("net");
const [port, user, name, number, atMs] = process.argv.slice(2);

function varint(value) {
  const bytes = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 127n) | 128);
  }
}
const tag = (field, wire) => varint((field << 3) | wire);
const bytes = (field, content) => Buffer.concat([tag(field, 2), varint(content.length), content]);
const double = Buffer.alloc(8);
double.writeDoubleLE(Number(number));
const value = Buffer.concat([tag(4, 1), double]); // Value.number
const feature = Buffer.concat([bytes(1, Buffer.from(name)), bytes(2, value), tag(3, 0), varint(atMs)]);
const features = bytes(1, feature); // PushedFeatures.features
const words = [Buffer.from("APPEND"), Buffer.from(`moerank:user:${user}`), features];
const command = [Buffer.from(`*${words.length}\r\n`)];
for (const word of words) command.push(Buffer.from(`$${word.length}\r\n`), word, Buffer.from("\r\n"));
const socket = net.connect(Number(port), "127.0.0.1", () => socket.write(Buffer.concat(command)));
socket.on("data", () => socket.end());
