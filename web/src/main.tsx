import "./style.css"; // first, so that the styles of components can override it
import { render } from "preact";
import { App } from "./app";

render(<App />, document.body);
