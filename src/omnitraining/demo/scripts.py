"""JavaScript of the page, as Gradio takes it of events."""

SCROLL_TO_RESULT = """() => {
    const wrong = document.querySelector("#query-message .omni-wrong");
    (wrong || document.getElementById("result")).scrollIntoView({ block: "nearest" });
}"""
"""On a phone the prediction would be out of sight."""

ON_LOAD = """() => {
    let tries = 100;
    const pick = () => {
        const brush = document.querySelector('#drawing button[aria-label="Brush"]');
        if (brush) brush.click();
        else if (tries--) setTimeout(pick, 100);
    };
    pick();

    const put = (input, files) => {
        const named = new DataTransfer();
        for (const [file, path] of files)
            named.items.add(new File([file], path, { type: file.type }));
        input.files = named.files;
    };
    const isFolder = (input) => input.matches("#folder input[type=file]");
    document.addEventListener("change", (event) => {
        if (!isFolder(event.target)) return;
        const files = [...event.target.files];
        put(event.target, files.map((file) => [file, file.webkitRelativePath || file.name]));
    }, true);

    const within = async (entry, path) => {
        if (entry.isFile)
            return [[await new Promise((done, fail) => entry.file(done, fail)), path]];
        const reader = entry.createReader(), found = [];
        for (;;) {
            const some = await new Promise((done, fail) => reader.readEntries(done, fail));
            if (!some.length) return found;
            for (const inner of some)
                found.push(...(await within(inner, `${path}/${inner.name}`)));
        }
    };
    document.addEventListener("drop", async (event) => {
        const input = event.target.closest("#folder")?.querySelector("input[type=file]");
        if (!input) return;
        event.preventDefault();
        event.stopPropagation();
        const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
        const found = [];
        for (const entry of entries) if (entry) found.push(...(await within(entry, entry.name)));
        put(input, found);
        input.dispatchEvent(new Event("change", { bubbles: true }));
    }, true);
}"""
"""Selects the brush, which must otherwise be selected before drawing; and gives the files of a
folder, chosen or dropped, its path for a name, since Gradio keeps names alone."""

WITH_PATHS = """(...values) => {
    const folder = values[values.length - 2] || [];
    return [...values.slice(0, -1), folder.map((file) => file.orig_name)];
}"""
"""Sets the last input to the file names of the folder in the input before it."""

DOWNLOAD = """(file) => {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
}"""
"""Downloads the file of a component, if there is one."""
