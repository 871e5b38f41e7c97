// Judges lines of NDJSON by the npm package `fhir`: node validate.js PACKAGES FILE. Prints a line for each that it refuses: its number
// from 0, a tab, its messages as JSON. What it says of value sets and of the types of references' targets is left out.
const fs = require('fs');
const path = require('path');
const { Fhir } = require(path.join(process.argv[2], 'node_modules/fhir'));

const judge = new Fhir();
const beside = /not found in value set|^Invalid type for reference/;
fs.readFileSync(process.argv[3], 'utf8').split('\n').forEach((line, number) => {
    if (!line) return;
    let messages;
    try {
        messages = judge.validate(JSON.parse(line), { errorOnUnexpected: true }).messages
            .filter(message => ['error', 'fatal'].includes(message.severity))
            .map(message => `${message.location}: ${message.message}`)
            .filter(message => !beside.test(message.slice(message.indexOf(': ') + 2)));
    } catch (error) {
        messages = [`failed: ${error.message}`];
    }
    if (messages.length) console.log(`${number}\t${JSON.stringify(messages)}`);
});
