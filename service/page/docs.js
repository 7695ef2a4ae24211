// Shows the API documentation with Swagger UI.
SwaggerUIBundle({
  dom_id: "#api",
  // This script is <prefix>/page/docs.js, the document <prefix>/openapi.json.
  url: new URL("../openapi.json", document.currentScript.src).href,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: null, // otherwise the document is sent to a public validator
});
