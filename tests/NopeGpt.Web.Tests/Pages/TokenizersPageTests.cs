using AngleSharp.Dom;
using Bunit;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using MudBlazor;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Tests;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Components.Parts;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class TokenizersPageTests
{
    [Fact]
    public async Task Tokenizers_are_listed_with_what_they_are_and_where_they_come_from()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Dataset.Make(store, "tales", documents: 40);
            Save(store, "twin", Tokenizer.Load(store.DatasetFolder("tales")), "/home/me/twin");
            Save(store, "other", BytePairTrainer.Train(["some words, some more words"], 262, [Tokenizer.EndOfText, "<|im_start|>", "<|im_end|>"]), "/home/me/other");
            Directory.CreateDirectory(store.TokenizerFolder("broken"));
            File.WriteAllText(Path.Combine(store.TokenizerFolder("broken"), "tokenizer.json"), "{");
        });
        IRenderedComponent<TokenizersPage> page = Open(host);
        Assert.Equal(["broken", "other", "twin", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"], page.FindAll("[data-tokenizer]").Select(r => r.GetAttribute("data-tokenizer")));
        string twin = Row(page, "twin").TextContent;
        foreach (string part in new[] { "300", "<|endoftext|>", "imported from …/me/twin", Tokenizer.Load(host.Store.DatasetFolder("tales")).Hash[..8], "just now" }) Assert.Contains(part, twin, StringComparison.Ordinal);
        Assert.Contains("<|endoftext|> and 2 more", Row(page, "other").TextContent, StringComparison.Ordinal);
        Assert.Contains("is damaged", Row(page, "broken").TextContent, StringComparison.Ordinal);
        Assert.Contains("836 KB to be got", Row(page, "r50k_base").TextContent, StringComparison.Ordinal);
        Assert.NotNull(Row(page, "r50k_base").QuerySelector("[aria-label='Get r50k_base']"));
        Assert.Contains("comes with the program", Row(page, "cl100k_base").TextContent, StringComparison.Ordinal);
        Assert.Null(Row(page, "cl100k_base").QuerySelector("button"));
        Assert.True(page.Find("#tokenizer option[value=broken]").HasAttribute("disabled"));
    }

    [Fact]
    public async Task A_text_is_shown_as_tokens_with_ids_and_bytes_and_special_tokens_by_the_switch()
    {
        await using PageHost host = await PageHost.StartAsync();
        host.Open("/tokenizers?tokenizer=cl100k_base&text=hello%20world%3C%7Cendoftext%7C%3E");
        IRenderedComponent<TokenizersPage> page = Open(host);
        page.WaitForAssertion(() => Assert.Equal("15339", page.FindAll(".toks li")[0].GetAttribute("data-id")), Wait.Longest);
        IElement world = page.FindAll(".toks li")[1];
        Assert.Equal(("·world", "1917", "20 77 6F 72 6C 64"), (world.TextContent, world.GetAttribute("data-id"), world.GetAttribute("data-hex")));
        Assert.Empty(page.FindAll(".toks .special"));
        int before = page.FindAll(".toks li").Count;

        await page.InvokeAsync(() => page.Find("#specials").Change(true));
        page.WaitForAssertion(() => Assert.Equal("100257", page.Find(".toks .special").GetAttribute("data-id")), Wait.Longest);
        Assert.Equal(3, page.FindAll(".toks li").Count);
        Assert.True(before > 3);
        Assert.Contains("specials=1", host.Address, StringComparison.Ordinal);
        Assert.Contains("text=hello", host.Address, StringComparison.Ordinal);

        await page.InvokeAsync(() => page.FindComponent<TypedText>().Instance.TypedAsync("é"));
        page.WaitForAssertion(() => Assert.Equal(["é"], page.FindAll(".toks li").Select(t => t.TextContent)), Wait.Longest);
        Assert.Equal(["1", "1", "2", "2.00"], page.FindAll(".tok-stats dd").Select(d => d.TextContent));
    }

    [Fact]
    public async Task Tokenizers_are_compared_on_the_text_or_on_a_data_set()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Dataset.Make(store, "tales", documents: 40);
            Save(store, "tales", Tokenizer.Load(store.DatasetFolder("tales")), null);
        });
        host.Open("/tokenizers?tokenizer=tales&with=cl100k_base&text=hello%20world");
        IRenderedComponent<TokenizersPage> page = Open(host);
        Tokenizer tales = Tokenizer.Load(host.Store.DatasetFolder("tales"));
        page.WaitForAssertion(() => Assert.Equal(["tales", "cl100k_base"], Compared(page)), Wait.Longest);
        string[] cells = [.. page.FindAll("[data-compared=cl100k_base] td").Select(c => c.TextContent)];
        Assert.Equal(["cl100k_base", "100,277", "2", "5.50", "3.02", "2", "exactly"], [.. cells[..3], .. cells[4..]]); // 2 x log2(100,277) bits for 11 bytes
        Assert.Equal(tales.Encode("hello world").Count.ToString(), page.FindAll("[data-compared=tales] td")[2].TextContent);

        await page.InvokeAsync(() => page.Find("#sample").Change("tales"));
        page.WaitForAssertion(() => Assert.Contains("40 documents", page.Find("[aria-labelledby=compare]").TextContent, StringComparison.Ordinal), Wait.Longest);
        Assert.Contains("sample=tales", host.Address, StringComparison.Ordinal);
        string[] texts = [.. Enumerable.Range(0, 40).Select(i => $"The {i}th fox met the {i * 7 % 13}th hen beside the old well, and they talked about the weather until the moon rose.")];
        Assert.Equal(texts.Sum(t => tales.Encode(t).Count).ToString("N0", System.Globalization.CultureInfo.InvariantCulture), page.FindAll("[data-compared=tales] td")[2].TextContent);

        await ClickAsync(page, ".pills button", "o200k_base");
        page.WaitForAssertion(() => Assert.Equal(["tales", "cl100k_base", "o200k_base"], Compared(page)), Wait.Longest);
        await ClickAsync(page, ".pills button", "cl100k_base");
        page.WaitForAssertion(() => Assert.Equal(["tales", "o200k_base"], Compared(page)), Wait.Longest);
    }

    [NeedsFact(Needs.SharedData)]
    public async Task One_that_is_not_here_says_how_to_get_it_and_is_fetched_or_says_why_not()
    {
        await using WebApplication mirror = WebApplication.CreateSlimBuilder().Build();
        mirror.Urls.Add("http://127.0.0.1:0");
        mirror.MapGet("/encodings/r50k_base.tiktoken", () => Results.File(Needs.Data("tokenizers/r50k_base.tiktoken")));
        await mirror.StartAsync();
        await using PageHost host = await PageHost.StartAsync(address: new Uri(mirror.Urls.Single() + "/encodings/"));
        host.Open("/tokenizers?tokenizer=p50k_base&text=hello%20world");
        IRenderedComponent<TokenizersPage> page = Open(host);
        page.WaitForAssertion(() => Assert.Contains("needs the file p50k_base.tiktoken", page.Find("[aria-labelledby=try] [role=alert]").TextContent, StringComparison.Ordinal), Wait.Longest);
        await ClickAsync(page, "[aria-label='Get p50k_base']");
        page.WaitForAssertion(() => Assert.Contains("could not be downloaded: the server answers 404", page.Find("[aria-labelledby=all] [role=alert]").TextContent, StringComparison.Ordinal), Wait.Longest);
        Assert.Contains("import it below", page.Find("[aria-labelledby=all] [role=alert]").TextContent, StringComparison.Ordinal);

        await page.InvokeAsync(() => page.Find("#tokenizer").Change("r50k_base"));
        page.WaitForAssertion(() => Assert.Contains("needs the file r50k_base.tiktoken", page.Find("[aria-labelledby=try] [role=alert]").TextContent, StringComparison.Ordinal), Wait.Longest);
        await ClickAsync(page, "[aria-labelledby=try] [role=alert] button");
        page.WaitForAssertion(() => Assert.Equal(["31373", "995"], page.FindAll(".toks li").Select(t => t.GetAttribute("data-id"))), Wait.Longest);
        Assert.Contains("its file is here", Row(page, "r50k_base").TextContent, StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_is_imported_under_a_name_that_its_folder_suggests_and_what_is_wrong_is_told()
    {
        using TemporaryFolder folder = new();
        BytePairTrainer.Train(["the cat sat on the mat"], 262).Save(folder["cats"]);
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<TokenizersPage> page = Open(host);
        await TypeAsync(page, "#import-path", folder["nowhere"]);
        await TypeAsync(page, "#import-name", "../up");
        await page.Find("#import form").SubmitAsync();
        page.WaitForAssertion(() => Assert.Contains("nowhere does not exist", page.Find("#import [role=alert]").TextContent, StringComparison.Ordinal), Wait.Longest);
        Assert.Contains("'../up' cannot be a name", page.Find("#import [role=alert]").TextContent, StringComparison.Ordinal);

        await TypeAsync(page, "#import-name", "felines");
        await TypeAsync(page, "#import-path", folder["cats/tokenizer.json"]);
        await page.Find("#import form").SubmitAsync();
        page.WaitForAssertion(() => Assert.NotNull(Row(page, "felines")), Wait.Longest);
        page.WaitForAssertion(() => Assert.Contains("tokenizer=felines", host.Address, StringComparison.Ordinal), Wait.Longest);
        page.WaitForAssertion(() => Assert.Empty(page.FindAll("#import [role=alert]")), Wait.Longest);
        await TypeAsync(page, "#import-path", folder["cats/tokenizer.json"]);
        page.WaitForAssertion(() => Assert.Equal("cats", page.Find("#import-name").GetAttribute("value")), Wait.Longest);
    }

    [Fact]
    public async Task Deleting_asks_first_and_is_refused_while_a_run_needs_it()
    {
        await using PageHost host = await PageHost.StartAsync(store => Save(store, "mine", BytePairTrainer.Train(["some words"], 260), "/somewhere"));
        IRenderedComponent<MudDialogProvider> dialogs = host.Page.Render<MudDialogProvider>();
        host.Page.Render<MudPopoverProvider>();
        IRenderedComponent<TokenizersPage> page = Open(host);
        string waiting = (await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "Needs it", Prepare = new PrepareConfig { Dataset = "later", Tokenizer = "mine" } })).Id;
        await ClickAsync(page, "[aria-label='Delete mine']");
        Assert.Empty(dialogs.FindAll(".mud-dialog"));
        Assert.Contains("mine is used by Needs it", host.Page.Services.GetRequiredService<ISnackbar>().ShownSnackbars.Single().Message?.ToString(), StringComparison.Ordinal);

        await host.Queue.StopAsync(waiting, StopRequest.Save);
        Task asking = ClickAsync(page, "[aria-label='Delete mine']");
        dialogs.WaitForAssertion(() => Assert.Contains("have copies of their own", dialogs.Markup, StringComparison.Ordinal), Wait.Longest);
        await dialogs.FindAll("button").Single(b => b.TextContent.Trim() == "Keep it").ClickAsync(new());
        await asking;
        Assert.True(new TokenizerLibrary(host.Store).Contains("mine"));

        asking = ClickAsync(page, "[aria-label='Delete mine']");
        dialogs.WaitForAssertion(() => Assert.Contains("leaves the store for good", dialogs.Markup, StringComparison.Ordinal), Wait.Longest);
        await dialogs.FindAll("button").Single(b => b.TextContent.Trim() == "Delete it").ClickAsync(new());
        await asking;
        page.WaitForAssertion(() => Assert.Empty(page.FindAll("[data-tokenizer=mine]")), Wait.Longest);
        Assert.Empty(Directory.EnumerateFileSystemEntries(host.Store.TokenizersFolder));
    }

    [Fact]
    public async Task One_that_is_being_trained_is_shown_with_speed_and_time_and_appears_when_it_is_done()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync();
        string id = (await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Tokenizer, Name = "Tokenizer words", Tokenizer = new TokenizerConfig { Name = "words", Source = PrepareConfig.Stories } })).Id;
        IRenderedComponent<TokenizersPage> page = Open(host);
        page.WaitForAssertion(() => Assert.Contains("Tokenizer words", page.Markup, StringComparison.Ordinal), Wait.Longest);
        run = new Scribe(host.Store, new RunConfig { Kind = RunKind.Tokenizer });
        Assert.Equal("reading the text · 12.5 MB/s · 20 s left", Figures.Doing(Told(run, new ProgressEvent("reading the text", 0.3, 12.5e6, 20))));
        Save(host.Store, "words", BytePairTrainer.Train([], 257), null);
        await host.Queue.StopAsync(id, StopRequest.Save);
        page.WaitForAssertion(() => Assert.NotNull(Row(page, "words")), Wait.Longest);
        Assert.DoesNotContain("Tokenizer words", page.Markup, StringComparison.Ordinal);
    }

    private static Web.Live.RunSnapshot Told(Scribe run, params TrainingEvent[] events)
    {
        run.Write(events);
        Web.Live.RunHistory history = new(run.Folder);
        history.CatchUp(null);
        return history.Snapshot(0);
    }

    private static IRenderedComponent<TokenizersPage> Open(PageHost host)
    {
        IRenderedComponent<TokenizersPage> page = host.Page.Render<TokenizersPage>();
        page.WaitForAssertion(() => Assert.NotEmpty(page.FindAll("[data-tokenizer]")), Wait.Longest);
        return page;
    }

    // Found and clicked in one turn of the page's: a rendering between the two would give the button another handler.
    private static Task ClickAsync(IRenderedComponent<TokenizersPage> page, string selector, string? text = null) =>
        page.InvokeAsync(() => page.FindAll(selector).Single(b => text is null || b.TextContent == text).ClickAsync(new()));

    private static Task TypeAsync(IRenderedComponent<TokenizersPage> page, string selector, string text) => page.InvokeAsync(() => page.Find(selector).Input(text));

    private static IElement Row(IRenderedComponent<TokenizersPage> page, string name) => page.Find($"[data-tokenizer={name}]");

    private static IEnumerable<string?> Compared(IRenderedComponent<TokenizersPage> page) => page.FindAll("[data-compared]").Select(r => r.GetAttribute("data-compared"));

    private static void Save(Store store, string name, Tokenizer tokenizer, string? from) =>
        new TokenizerLibrary(store).Add(name, tokenizer, new TokenizerInfo { Made = DateTimeOffset.UtcNow, ImportedFrom = from });
}
