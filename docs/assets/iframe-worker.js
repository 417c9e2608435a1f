// Search in a site that is opened from a folder: browsers give pages of files no workers, so that a
// hidden frame does the work. The theme would else load such a script from another machine.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      const answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.postMessage = (data) => setTimeout(answer, 0, data);
      inside.importScripts = (...urls) => Promise.all(urls.map((each) => this.load(each)));
      this.loaded = this.load(url);
    }
    load(url) {
      const script = this.inside.document.createElement("script");
      script.src = new URL(url, document.baseURI);
      const loaded = new Promise((done) => (script.onload = done));
      this.inside.document.body.append(script);
      return loaded;
    }
    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
