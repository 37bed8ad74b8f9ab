import "./style.css";
import { render } from "preact";
import { meet } from "./app";
import { openLibrary } from "./library";
import { Page } from "./ui/page";

render(<Page />, document.getElementById("page")!);
void openLibrary().then(meet);
