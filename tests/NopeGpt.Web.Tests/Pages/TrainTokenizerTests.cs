using AngleSharp.Dom;
using Bunit;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Tests;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class TrainTokenizerTests
{
    [Fact]
    public async Task Every_setting_has_a_field_with_a_label_and_a_help_text()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<TrainTokenizer> page = host.Page.Render<TrainTokenizer>();
        foreach (Setting setting in Settings.All.Where(s => s.Section == "tokenizer" && s.Name != "special_tokens"))
        {
            IElement field = page.Find($"[id='field-{setting.Path}']");
            Assert.Equal(field.QuerySelector("input, select")!.Id, field.QuerySelector("label")!.GetAttribute("for"));
            Assert.True(field.QuerySelector(".help")!.TextContent.Length > 10, $"{setting.Path} has no help text");
        }
        Assert.Equal(PrepareConfig.Stories, page.Find("#setting-tokenizer-source").GetAttribute("value"));
    }

    [Fact]
    public async Task The_form_queues_a_run_with_what_was_typed_and_leads_to_it()
    {
        using TemporaryFolder folder = new();
        await File.WriteAllLinesAsync(folder["text.jsonl"], ["""{"body": "some words", "id": 1}"""]);
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<TrainTokenizer> page = host.Page.Render<TrainTokenizer>();
        Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));
        await TypeAsync(page, "#setting-tokenizer-name", "mine");
        await TypeAsync(page, "#setting-tokenizer-source", folder["text.jsonl"]);
        await TypeAsync(page, "#setting-tokenizer-vocabulary_size", "300");
        await page.InvokeAsync(() => page.Find("#chat-markers").Change(true));
        await TypeAsync(page, "#more-specials", "<|pad|>\n\n <|x|> ");
        page.WaitForAssertion(() => Assert.Contains("1 file, 32 bytes as stored; columns: body, id", page.Find(".summary").TextContent, StringComparison.Ordinal), Wait.Longest);
        page.WaitForAssertion(() => Assert.Empty(page.FindAll(".problems")), Wait.Longest);

        await page.Find("form").SubmitAsync();
        string id = Assert.Single(await host.Queue.ListAsync()).Id;
        Assert.EndsWith($"/runs/{id}", host.Address, StringComparison.Ordinal);
        Assert.True(RunFolder.TryOpen(host.Store, id, out RunFolder? run));
        RunConfig config = run.Read().Config;
        Assert.Equal((RunKind.Tokenizer, "Tokenizer mine", "mine", folder["text.jsonl"], 300), (config.Kind, config.Name, config.Tokenizer.Name, config.Tokenizer.Source, config.Tokenizer.VocabularySize));
        Assert.Equal([Tokenizer.EndOfText, .. ChatFormat.Markers, "<|pad|>", "<|x|>"], config.Tokenizer.SpecialTokens);
    }

    [Fact]
    public async Task What_is_wrong_is_told_beside_its_field()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<TrainTokenizer> page = host.Page.Render<TrainTokenizer>();
        await TypeAsync(page, "#setting-tokenizer-name", "a b");
        await TypeAsync(page, "#setting-tokenizer-source", "/no/such/file.txt");
        await TypeAsync(page, "#setting-tokenizer-vocabulary_size", "many");
        await TypeAsync(page, "#more-specials", "word");
        page.WaitForAssertion(() =>
        {
            Assert.Contains("cannot be a name", page.Find("[id='field-tokenizer.name'] .wrong").TextContent, StringComparison.Ordinal);
            Assert.Contains("/no/such/file.txt", page.Find("[id='field-tokenizer.source'] .wrong").TextContent, StringComparison.Ordinal);
            Assert.Contains("must be a whole number", page.Find("[id='field-tokenizer.vocabulary_size'] .wrong").TextContent, StringComparison.Ordinal);
            Assert.Contains("word could also be spelled by ordinary text", page.Find("#more-specials-help .wrong").TextContent, StringComparison.Ordinal);
            Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));
        }, Wait.Longest);
        await TypeAsync(page, "#setting-tokenizer-name", "a-b");
        page.WaitForAssertion(() => Assert.Empty(page.FindAll("[id='field-tokenizer.name'] .wrong")), Wait.Longest);
    }

    // Found and changed in one turn of the page's: a rendering between the two would give the field another handler.
    private static Task TypeAsync(IRenderedComponent<TrainTokenizer> page, string selector, string text) => page.InvokeAsync(() => page.Find(selector).Input(text));
}
