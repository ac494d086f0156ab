"""`olearning monitor`: the live page. `facts` and `charts` say what it shows, as pure functions of snapshots; `page` draws that with
NiceGUI, and `serve` runs both. NiceGUI is imported by `parts`, `page` and `serve` alone, and they by the command alone."""
