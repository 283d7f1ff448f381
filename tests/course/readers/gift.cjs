// GIFT on standard input, as gift-pegjs reads it, as JSON on standard output.
const { parse } = require("gift-pegjs");
console.log(JSON.stringify(parse(require("fs").readFileSync(0, "utf8"))));
