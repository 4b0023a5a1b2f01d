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
        page.Find("#setting-tokenizer-name").Input("mine");
        page.Find("#setting-tokenizer-source").Input(folder["text.jsonl"]);
        page.Find("#setting-tokenizer-vocabulary_size").Input("300");
        page.Find("#chat-markers").Change(true);
        page.Find("#more-specials").Input("<|pad|>\n\n <|x|> ");
        page.WaitForAssertion(() => Assert.Contains("1 file, 32 bytes as stored; columns: body, id", page.Find(".summary").TextContent, StringComparison.Ordinal), Wait.Longest);
        Assert.Empty(page.FindAll(".problems"));

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
        page.Find("#setting-tokenizer-name").Input("a b");
        page.Find("#setting-tokenizer-source").Input("/no/such/file.txt");
        page.Find("#setting-tokenizer-vocabulary_size").Input("many");
        page.Find("#more-specials").Input("word");
        Assert.Contains("cannot be a name", page.Find("[id='field-tokenizer.name'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("/no/such/file.txt", page.Find("[id='field-tokenizer.source'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("must be a whole number", page.Find("[id='field-tokenizer.vocabulary_size'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("word could also be spelled by ordinary text", page.Find("#more-specials-help .wrong").TextContent, StringComparison.Ordinal);
        Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));
        page.Find("#setting-tokenizer-name").Input("a-b");
        Assert.Empty(page.FindAll("[id='field-tokenizer.name'] .wrong"));
    }
}
