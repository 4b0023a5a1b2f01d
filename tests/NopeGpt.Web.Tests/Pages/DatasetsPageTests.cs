using AngleSharp.Dom;
using Bunit;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Components.Parts.Datasets;
using NopeGpt.Web.Tests.Live;
using NopeGpt.Web.Uploads;

namespace NopeGpt.Web.Tests.Pages;

public sealed class DatasetsPageTests
{
    [Fact]
    public async Task An_empty_store_says_what_to_do_and_shows_the_catalogue_with_licence_and_size()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<DatasetsPage> page = Page(host);
        page.WaitForAssertion(() => Assert.Contains("There is no data set yet", page.Markup, StringComparison.Ordinal));
        IReadOnlyList<IElement> known = page.FindAll(".known > li");
        Assert.Equal(KnownDatasets.All.Count, known.Count);
        foreach ((IElement card, KnownDataset set) in known.Zip(KnownDatasets.All))
            foreach (string text in new[] { set.Name, set.Licence, set.Size, set.Peculiar ?? "" }) Assert.Contains(text, card.TextContent, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_data_set_stands_with_its_numbers_what_was_wrong_and_where_it_is_from()
    {
        ReadingReport wrong = new() { Records = 3 };
        wrong.AddBad("mine.jsonl", 7, "it is broken", 2);
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Dataset.MakeText(store, "tales", ["one fox", "two hens", "three owls"], wrong);
            Dataset.MakeChat(store, "talks", ["""{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"good day"}]}""", """{"messages":[]}"""]);
            Directory.CreateDirectory(store.DatasetFolder("damaged"));
        });
        IRenderedComponent<DatasetsPage> page = Page(host);
        page.WaitForElement("[data-dataset]");
        string tales = page.Find("[data-dataset=tales]").TextContent, talks = page.Find("[data-dataset=talks]").TextContent, damaged = page.Find("[data-dataset=damaged]").TextContent;
        Assert.Contains("of-mine.jsonl.gz", tales, StringComparison.Ordinal);
        Assert.Contains("2 bad records", tales, StringComparison.Ordinal);
        Assert.Contains("hub:someone/talks@0123456 ", talks.Replace("·", " ", StringComparison.Ordinal).Replace("  ", " ", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Contains("apache-2.0", talks, StringComparison.Ordinal);
        Assert.Contains("1 record left out", talks, StringComparison.Ordinal);
        Assert.Contains("dataset.json", damaged, StringComparison.Ordinal);
        Assert.Equal("runs/new?dataset=tales", page.Find("[aria-label='Train on tales']").GetAttribute("href"));
        Assert.Empty(page.FindAll("[aria-label='Train on damaged']"));
    }

    [Fact]
    public async Task A_run_that_makes_one_is_shown_with_stage_speed_and_time_and_a_failed_one_with_its_reason()
    {
        string working = "";
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Scribe failed = new(store, new RunConfig { Kind = RunKind.Prepare, Name = "Bad one", Prepare = new PrepareConfig { Dataset = "bad", Source = "/nowhere.txt" } });
            failed.Append(Now(new StartedEvent(1, 0, 1, "cpu"), new EndedEvent(RunState.Failed, "there is nothing there")));
            Scribe run = new(store, new RunConfig { Kind = RunKind.Prepare, Name = "Good one", Prepare = new PrepareConfig { Dataset = "good", Source = "/texts.txt" } });
            run.Append(Now(new StartedEvent(1, 0, 1, "cpu"), new ProgressEvent("encoding", 0.42, 12_300_000, 40)));
            working = run.Id;
        });
        IRenderedComponent<PreparingRuns> part = host.Page.Render<PreparingRuns>(p => p.Add(r => r.Runs,
            [(new Jobs.Queue.RunRow { Id = working, Name = "Good one", Kind = RunKind.Prepare, State = RunState.Running }, new PrepareConfig { Dataset = "good", Source = "/texts.txt" })]));
        Assert.Contains("encoding · 12.3 MB/s · 40 s left", part.Markup, StringComparison.Ordinal);
        Assert.Equal("42", part.Find("[role=progressbar]").GetAttribute("aria-valuenow"));
        Assert.NotNull(part.Find("[aria-label='Stop Good one']"));

        IRenderedComponent<DatasetsPage> page = Page(host);
        page.WaitForAssertion(() => Assert.Contains("there is nothing there", page.Find("[data-state=Failed]").TextContent, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Every_field_of_the_form_has_a_label()
    {
        await using PageHost host = await PageHost.StartAsync(store => File.WriteAllText(store.DatasetsFolder + "/../x.txt", "text"));
        IRenderedComponent<DatasetsPage> page = Page(host);
        foreach (string mode in new[] { "Hugging Face Hub", "Files on this machine", "Upload", "Stories" })
        {
            await Choose(page, mode);
            foreach (IElement control in page.FindAll("form input, form select"))
                Assert.True(page.FindAll("label").Any(l => l.GetAttribute("for") == control.Id) || control.Closest("label") is not null || control.HasAttribute("aria-label"), $"{mode}: {control.OuterHtml}");
        }
    }

    [Fact]
    public async Task A_file_is_looked_at_mapped_and_prepared_by_a_run()
    {
        await using PageHost host = await PageHost.StartAsync();
        string file = Path.Combine(host.Store.CacheFolder, "My Pages.jsonl");
        await File.WriteAllLinesAsync(file, ["""{"id":1,"seite":"<b>eins</b>","more":{"a":[1,true,null]}}""", """{"id":2,"seite":"zwei"}""", "{broken"]);
        IRenderedComponent<DatasetsPage> page = Page(host);
        await Choose(page, "Files on this machine");
        await page.Find("#source-path").InputAsync(file);
        await page.Find("#source-path").ChangeAsync(file);
        page.WaitForAssertion(() => Assert.Contains("in 1 file", page.Find(".summary").TextContent, StringComparison.Ordinal));
        await Button(page, "Look at the first records").ClickAsync(new());
        page.WaitForElement(".records li");
        Assert.Equal(2, page.FindAll(".records li").Count);
        Assert.Contains("<b>eins</b>", page.Find(".records").TextContent, StringComparison.Ordinal);
        Assert.Contains("null", page.Find(".records").TextContent, StringComparison.Ordinal);
        Assert.Contains("row 3", page.Find(".look .note").TextContent, StringComparison.Ordinal);
        Assert.Contains("Name the columns yourself", page.Find(".look").TextContent, StringComparison.Ordinal);
        Assert.Equal("my-pages", page.Find("#setting-prepare-dataset").GetAttribute("value"));

        await page.Find("#column-text").ChangeAsync("seite");
        Assert.Equal("text=seite", page.Find("#setting-prepare-columns").GetAttribute("value"));
        await page.Find("#setting-prepare-vocabulary_size").InputAsync("300");
        Assert.Empty(page.FindAll(".problems"));
        await page.Find("form").SubmitAsync();
        page.WaitForState(() => host.Queue.ListAsync().GetAwaiter().GetResult().Count == 1, Wait.Longest);
        string id = Assert.Single(await host.Queue.ListAsync()).Id;
        Assert.True(RunFolder.TryOpen(host.Store, id, out RunFolder? folder));
        PrepareConfig recipe = folder.Read().Config.Prepare;
        Assert.Equal((file, "text=seite", "my-pages", 300), (recipe.Source, recipe.Columns, recipe.Dataset, recipe.VocabularySize));
        page.WaitForElement($"[data-run='{id}']", Wait.Longest);
        // Its name is taken now.
        await Choose(page, "Files on this machine");
        await page.Find("#setting-prepare-dataset").InputAsync("my-pages");
        page.WaitForAssertion(() => Assert.Contains("choose another", page.Find(".problems").TextContent, StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_is_wrong_is_told_and_nothing_can_be_prepared()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "tales", ["one fox"]));
        IRenderedComponent<DatasetsPage> page = Page(host);
        Assert.Contains("name a data set, such as", page.Find(".problems").TextContent, StringComparison.Ordinal);
        Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));
        await page.Find("#hub-name").InputAsync("no spaces/in names");
        Assert.Contains("not the name of a data set on the Hub", page.Find(".problems").TextContent, StringComparison.Ordinal);
        await page.Find("#hub-name").InputAsync("hub:someone/set:a-part:test@v2");
        Assert.Equal(("someone/set", "a-part", "test", "v2"), (Value(page, "#hub-name"), Value(page, "#hub-subset"), Value(page, "#hub-split"), Value(page, "#hub-revision")));
        await page.Find("#setting-prepare-dataset").InputAsync("tales");
        Assert.Contains("there is a data set of that name", page.Find("[id='field-prepare.dataset']").TextContent, StringComparison.Ordinal);
        await page.Find("#setting-prepare-dataset").InputAsync("no spaces");
        Assert.Contains("letters, digits", page.Find("[id='field-prepare.dataset'] .wrong").TextContent, StringComparison.Ordinal);
        await page.Find("#setting-prepare-dataset").InputAsync("");
        Assert.Equal("set-a-part", page.Find(".summary dd").TextContent);
        await page.Find("#setting-prepare-kind").ChangeAsync("chat");
        await page.Find("#setting-prepare-columns").InputAsync("text");
        Assert.Contains("part=column", page.Find("[id='field-prepare.columns'] .wrong").TextContent, StringComparison.Ordinal);
        await page.Find("#tokenizer-choice").ChangeAsync("path");
        await page.Find("#tokenizer-path").InputAsync("/no/tokenizer.json");
        await page.Find("#tokenizer-path").ChangeAsync("/no/tokenizer.json");
        page.WaitForAssertion(() => Assert.Contains("/no/tokenizer.json does not exist", page.Find("#tokenizer-help").TextContent, StringComparison.Ordinal));
        await Choose(page, "Files on this machine");
        await page.Find("#source-path").InputAsync("/no/such/folder");
        await page.Find("#source-path").ChangeAsync("/no/such/folder");
        page.WaitForAssertion(() => Assert.Contains("does not exist", page.Find("#source-path-help .wrong").TextContent, StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_address_fills_the_form_and_the_form_the_address()
    {
        await using PageHost host = await PageHost.StartAsync();
        host.Open("/datasets?source=hub:HuggingFaceTB/smoltalk:smol-rewrite&vocabulary_size=777&tokenizer=cl100k_base&nonsense=1");
        IRenderedComponent<DatasetsPage> page = Page(host);
        page.WaitForElement("#hub-name");
        Assert.Equal(("HuggingFaceTB/smoltalk", "smol-rewrite", "cl100k_base"), (Value(page, "#hub-name"), Value(page, "#hub-subset"), Value(page, "#tokenizer-choice")));
        Assert.Contains("apache-2.0", page.Find(".summary").TextContent, StringComparison.Ordinal);
        await page.Find("#setting-prepare-max_tokens").InputAsync("5000");
        await page.Find("form").FocusOutAsync(new());
        foreach (string part in new[] { "max_tokens=5000", "vocabulary_size=777", "source=hub%3AHuggingFaceTB%2Fsmoltalk%3Asmol-rewrite", "tokenizer=cl100k_base" }) Assert.Contains(part, host.Address, StringComparison.Ordinal);
        // A link of the catalogue begins anew.
        host.Open(page.Find("[aria-label='Prepare roneneldan/TinyStories']").GetAttribute("href")!);
        page.WaitForAssertion(() => Assert.Equal("roneneldan/TinyStories", Value(page, "#hub-name")));
        Assert.Equal("0", Value(page, "#setting-prepare-max_tokens"));
    }

    [Fact]
    public async Task The_Hub_is_asked_for_files_subsets_and_licence_and_for_records_only_on_request()
    {
        using HubServer hub = new();
        hub.Publish("someone/set", new Dictionary<string, byte[]> { ["small/train.jsonl"] = "{\"text\":\"a page\"}\n"u8.ToArray(), ["large/train.jsonl"] = new byte[5000] },
            new { license = "cc-by-4.0", configs = new object[] { new { config_name = "small", data_files = "small/*" }, new { config_name = "large", data_files = "large/*" } } });
        await using PageHost host = await PageHost.StartAsync(hub: hub.Endpoint);
        host.Open("/datasets?source=hub:someone/set:small");
        IRenderedComponent<DatasetsPage> page = Page(host);
        await Button(page, "Ask the Hub").ClickAsync(new());
        page.WaitForElement(".look .pairs", Wait.Longest);
        string look = page.Find(".look").TextContent;
        foreach (string text in new[] { "cc-by-4.0", "small, large", "small/train.jsonl", "18 bytes" }) Assert.Contains(text, look, StringComparison.Ordinal);
        Assert.Contains("cc-by-4.0", page.Find(".summary").TextContent, StringComparison.Ordinal);
        Assert.DoesNotContain(hub.Requests, r => r.Path.Contains("/resolve/", StringComparison.Ordinal));
        await Button(page, "Get the first records").ClickAsync(new());
        page.WaitForElement(".records li", Wait.Longest);
        Assert.Contains("a page", page.Find(".records").TextContent, StringComparison.Ordinal);
        // In the queue it stays a name.
        await page.Find("form").SubmitAsync();
        page.WaitForState(() => host.Queue.ListAsync().GetAwaiter().GetResult().Count == 1, Wait.Longest);
        Assert.True(RunFolder.TryOpen(host.Store, (await host.Queue.ListAsync())[0].Id, out RunFolder? folder));
        Assert.Equal("hub:someone/set:small", folder.Read().Config.Prepare.Source);
    }

    [Fact]
    public async Task A_Hub_that_has_no_such_set_says_so()
    {
        using HubServer hub = new();
        await using PageHost host = await PageHost.StartAsync(hub: hub.Endpoint);
        host.Open("/datasets?source=hub:someone/nothing");
        IRenderedComponent<DatasetsPage> page = Page(host);
        await Button(page, "Ask the Hub").ClickAsync(new());
        Assert.Contains("someone/nothing", page.WaitForElement(".look [role=alert]", Wait.Longest).TextContent, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_that_was_sent_is_chosen_and_a_new_one_is_checked_before_it_is_sent()
    {
        await using PageHost host = await PageHost.StartAsync();
        UploadStore uploads = host.Page.Services.GetRequiredService<UploadStore>();
        using MemoryStream content = new("some text"u8.ToArray());
        await uploads.SaveAsync("old.txt", content, null, replace: false);
        IRenderedComponent<DatasetsPage> page = Page(host);
        await Choose(page, "Upload");
        UploadSender sender = page.FindComponent<UploadSender>().Instance;
        Assert.Equal((null, false), (sender.Check("new.txt", 10).Problem, sender.Check("new.txt", 10).Exists));
        Assert.True(sender.Check("old.txt", 10).Exists);
        Assert.Contains(".parquet", sender.Check("new.exe", 10).Problem, StringComparison.Ordinal);
        Assert.Contains("1000000 bytes", sender.Check("new.txt", 1_000_001).Problem, StringComparison.Ordinal);
        await page.InvokeAsync(() => sender.SentAsync(Path.Combine(host.Store.UploadsFolder, "old.txt")));
        page.WaitForAssertion(() => Assert.Contains("9 bytes in 1 file", page.Find(".summary").TextContent, StringComparison.Ordinal));
        Assert.Equal("old", Value(page, "#setting-prepare-dataset"));
        Assert.False(page.Find("button[type=submit]").HasAttribute("disabled"));
    }

    [Fact]
    public async Task A_tokenizer_of_the_store_can_be_chosen_and_one_that_is_overwritten_is_told()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            foreach (string name in new[] { "words", "stories" })
            {
                Directory.CreateDirectory(store.TokenizerFolder(name));
                BytePairTrainer.Train(["some words"], 260).Save(store.TokenizerFolder(name));
            }
        });
        IRenderedComponent<DatasetsPage> page = Page(host);
        await Choose(page, "Stories");
        Assert.Contains("tokenizer stories: this data set's own takes its place", page.Find(".summary").TextContent, StringComparison.Ordinal);
        await page.Find("#tokenizer-choice").ChangeAsync("words");
        page.WaitForAssertion(() => Assert.Empty(page.FindAll("#setting-prepare-vocabulary_size")));
        Assert.Empty(page.FindAll(".problems"));
        Assert.Contains("words", page.Find(".summary").TextContent, StringComparison.Ordinal);
    }

    private static IRenderedComponent<DatasetsPage> Page(PageHost host)
    {
        IRenderedComponent<DatasetsPage> page = host.Page.Render<DatasetsPage>();
        page.WaitForElement("#add", Wait.Longest);
        return page;
    }

    private static Task Choose(IRenderedComponent<DatasetsPage> page, string mode) => page.FindAll(".new-run .pills button").Single(b => b.TextContent == mode).ClickAsync(new());

    private static IElement Button(IRenderedComponent<DatasetsPage> page, string text) => page.FindAll("button").Single(b => b.TextContent == text);

    private static string? Value(IRenderedComponent<DatasetsPage> page, string selector) => page.Find(selector).GetAttribute("value");

    private static string Now(params TrainingEvent[] events) => string.Concat(events.Select((e, i) => System.Text.Json.JsonSerializer.Serialize(e with { Sequence = i + 1, Time = DateTimeOffset.UtcNow }, TrainingEvent.Json) + "\n"));
}
