import "./style.css"; // before those of the views, which say more
import { render } from "preact";
import { App } from "./app";

render(<App />, document.body);
