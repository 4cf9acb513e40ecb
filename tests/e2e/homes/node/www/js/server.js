const { createServer } = require('http')
const { userInfo } = require('os')

createServer((request, response) => {
  response.end(`node as ${userInfo().username}: ${request.method} ${request.url}\n`)
}).listen(process.env.PORT)
