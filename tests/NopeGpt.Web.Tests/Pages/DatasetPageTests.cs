using AngleSharp.Dom;
using Bunit;
using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class DatasetPageTests
{
    private static readonly string[] Talks =
    [
        """{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello <|im_end|> there"},{"role":"assistant","content":"good day\nto you"}]}""",
        """{"messages":[{"role":"user","content":"what is it"},{"role":"assistant","content":"a fox"},{"role":"user","content":"and that"},{"role":"assistant","content":"a hen"}]}""",
        """{"messages":[{"role":"user","content":"who"},{"role":"assistant","content":"an owl"}]}""",
    ];

    [Fact]
    public async Task Counts_lengths_repetitions_problems_and_the_recipe_are_shown()
    {
        ReadingReport wrong = new() { Records = 4 };
        wrong.AddBad("of-mine.jsonl.gz", 17, "this is not JSON");
        string[] texts = ["one fox", "two hens and a fox by the old well", "one fox", "three owls"];
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "tales", texts, wrong));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "tales");
        string all = page.Markup;
        Assert.Contains("25 %", page.Find(".stats").TextContent, StringComparison.Ordinal);
        Assert.DoesNotContain("estimate", all, StringComparison.Ordinal);
        TokenStatistics counted = Counted(host.Store, "tales");
        Assert.Equal(counted.Lengths.Count, page.FindAll(".lengths svg rect").Count);
        Assert.Equal(counted.Lengths.Select(l => l.Documents.ToString()), page.FindAll(".lengths tbody tr").Select(r => r.QuerySelectorAll("td")[0].TextContent));
        Assert.Contains("most of them", page.Find(".lengths svg").GetAttribute("aria-label"), StringComparison.Ordinal);
        IElement place = Assert.Single(page.FindAll(".wrong-places tbody tr"));
        Assert.Equal(["of-mine.jsonl.gz", "17", "this is not JSON"], place.QuerySelectorAll("td").Select(c => c.TextContent));
        Assert.Contains("/texts/of-mine.jsonl.gz", page.Find("[aria-labelledby=origin]").TextContent, StringComparison.Ordinal);
        Assert.Contains("300", page.Find("[aria-labelledby=origin]").TextContent, StringComparison.Ordinal);
        Assert.Contains(page.FindAll("a"), a => a.GetAttribute("href") == "runs/new?dataset=tales");
    }

    [Fact]
    public async Task An_old_one_without_statistics_and_a_damaged_one_are_shown_too()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Dataset.MakeText(store, "old", ["one fox"], statistics: false);
            Dataset.MakeText(store, "cut", ["one fox"]);
            using FileStream file = File.OpenWrite(store.DatasetTokens("cut"));
            file.SetLength(file.Length - 1);
        });
        Assert.Contains("made before lengths were kept", (await OpenAsync(host, "old")).Markup, StringComparison.Ordinal);
        IRenderedComponent<DatasetPage> cut = await OpenAsync(host, "cut");
        Assert.Equal(2, cut.FindAll("[role=alert]").Count(a => a.TextContent.Contains("tokens.bin", StringComparison.Ordinal)));
        Assert.DoesNotContain(cut.FindAll("a"), a => a.GetAttribute("href") == "runs/new?dataset=cut");
        IRenderedComponent<DatasetPage> none = host.Page.Render<DatasetPage>(p => p.Add(d => d.Name, "nothing"));
        none.WaitForAssertion(() => Assert.Equal("There is no data set nothing", none.Find("h1").TextContent));
    }

    [Fact]
    public async Task A_document_is_shown_as_text_and_as_tokens_and_the_address_says_which()
    {
        string[] texts = ["one fox", "two\n  hens <script>alert(1)</script> 🦊", "three owls"];
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "tales", texts));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "tales", "?row=2");
        Assert.Equal(texts[1], page.Find(".raw").TextContent);
        Assert.Empty(page.FindAll("script"));
        await Press(page, "Tokens");
        page.WaitForElement(".tokens");
        Assert.EndsWith("datasets/tales?view=tokens", host.Address, StringComparison.Ordinal);
        await page.Find("#preview-row").ChangeAsync("2");
        page.WaitForAssertion(() => Assert.Contains("script", page.Find(".tokens").TextContent.Replace("·", " ", StringComparison.Ordinal).Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal));
        (int[] ids, Tokenizer tokenizer) = Document(host.Store, "tales", 1);
        Assert.Equal(ids, page.FindAll(".tokens .token .id").Select(i => int.Parse(i.TextContent)));
        Assert.Contains(page.FindAll(".tokens .text"), t => t.TextContent.Contains('⏎', StringComparison.Ordinal));
        Assert.Equal("<|endoftext|>", page.FindAll(".tokens .special .text").Single().TextContent);
        // Nothing of the text is in it, so the fox comes as bytes, of which the last completes it.
        Assert.Equal("f0", page.FindAll(".tokens .bytes .text")[0].TextContent);
        Assert.Contains(page.FindAll(".tokens .text"), t => t.TextContent == "🦊");
        Assert.NotNull(tokenizer);

        await page.Find("[aria-label='The next']").ClickAsync(new());
        page.WaitForAssertion(() => Assert.EndsWith("view=tokens&row=3", host.Address, StringComparison.Ordinal));
        page.WaitForAssertion(() => Assert.True(page.Find("[aria-label='The next']").HasAttribute("disabled")));
    }

    [Fact]
    public async Task A_long_document_is_shown_in_parts_without_a_cut_character()
    {
        // Every character takes several tokens, so that parts would cut one.
        string text = "a" + string.Concat(Enumerable.Repeat("🦊狐", 900));
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "foxes", ["a", text, .. Enumerable.Range(0, 50).Select(i => $"other words {i}")]));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "foxes", "?row=2");
        string read = page.Find(".raw").TextContent;
        for (int part = 2; page.FindAll("button").Any(b => b.TextContent == "Later" && !b.HasAttribute("disabled")); part++)
        {
            await Press(page, "Later");
            string expected = $"part={part}";
            page.WaitForAssertion(() => Assert.Contains(expected, host.Address, StringComparison.Ordinal));
            string before = read;
            page.WaitForAssertion(() => Assert.False(before.EndsWith(page.Find(".raw").TextContent, StringComparison.Ordinal) && before.Length == text.Length));
            page.WaitForAssertion(() => Assert.Contains($"to", page.Find(".preview").TextContent, StringComparison.Ordinal));
            read += page.Find(".raw").TextContent;
        }
        Assert.Equal(text, read);
    }

    [Fact]
    public async Task A_conversation_is_shown_as_messages()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeChat(store, "talks", Talks));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "talks");
        Assert.Equal([("system", "be kind"), ("user", "hello <|im_end|> there"), ("assistant", "good day\nto you")],
            page.FindAll(".bubbles li").Select(l => (l.QuerySelector("span")!.TextContent, l.QuerySelector("div")!.TextContent)));
        Assert.Single(page.FindAll(".bubbles .reply"));
    }

    [Fact]
    public async Task A_pair_is_shown_side_by_side()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeChat(store, "pairs", ["""{"prompt":"who is it","chosen":"a kind fox","rejected":"go away"}"""], pairs: true));
        foreach (int row in new[] { 1, 2 })
        {
            IRenderedComponent<DatasetPage> page = await OpenAsync(host, "pairs", $"?row={row}");
            Assert.Equal(["Chosen", "Rejected"], page.FindAll(".pair h3").Select(h => h.TextContent));
            Assert.Equal(["a kind fox", "go away"], page.FindAll(".pair .reply > div").Select(d => d.TextContent));
        }
    }

    [Theory]
    [InlineData("reply", "an owl")]
    [InlineData("everything", "who")]
    public async Task The_row_is_that_of_the_real_batch_with_its_labels(string labels, string learned)
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeChat(store, "talks", Talks));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "talks", $"?view=loss&packed=true&tokens_per_sample=128&labels={labels}&num_eval_samples=0&seed=7&batch_size=1");
        using Data.Chat.ChatFile file = Data.Chat.ChatFile.Open(host.Store.DatasetTokens("talks"));
        Data.Chat.ChatBatchSource source = new(file, Tokenizer.Load(host.Store.DatasetFolder("talks")).EndOfTextId, new Data.Chat.ChatBatchOptions
        {
            BatchSize = 1, Packing = true, Seed = 7, Sample = new Data.Chat.ChatSampleOptions { MaxTokens = 128, Labels = labels == "reply" ? Data.Chat.ChatLabels.Reply : Data.Chat.ChatLabels.Everything },
        });
        Batch batch = source.Training(0);
        int expected = batch.Targets.Count(t => t >= 0);
        Assert.Equal(expected, page.FindAll(".tokens .learned").Count);
        Assert.Contains($"{expected} of 128 tokens", page.Find(".share").TextContent, StringComparison.Ordinal);
        Assert.Equal(batch.Sequences!.Max() + 1, page.FindAll(".tokens .sequence").Count);
        string text = string.Concat(page.FindAll(".tokens .learned .text").Select(t => t.TextContent)).Replace('·', ' ');
        Assert.Contains(learned, text, StringComparison.Ordinal);
        if (labels == "reply") Assert.DoesNotContain("be kind", text, StringComparison.Ordinal);
        Assert.Empty(page.FindAll(".tokens .padding"));

        await page.FindAll(".checks input")[1].ChangeAsync(true);
        page.WaitForAssertion(() => Assert.Equal(batch.Sequences!.Count(s => s == Batch.Padding), page.FindAll(".tokens .padding").Count));
        Assert.Contains("padding=true", host.Address, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Rows_of_text_are_those_of_a_training_run_whatever_the_batch_size()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "tales", [.. Enumerable.Range(0, 300).Select(i => $"the {i}th fox met the {i % 7}th hen")]));
        using TokenFile file = TokenFile.Open(host.Store.DatasetTokens("tales"));
        BatchSource source = new(file, new BatchOptions { BatchSize = 4, TokensPerSample = 32, Seed = 1337, HoldoutSamples = 8 });
        Batch batch = source.Training(1);
        foreach (int size in new[] { 1, 4, 5 })
        {
            // Row 6 of the order is row 2 of the second batch of four.
            IRenderedComponent<DatasetPage> page = await OpenAsync(host, "tales", $"?view=loss&tokens_per_sample=32&num_eval_samples=8&batch_size={size}&row=7");
            int[] ids = [.. page.FindAll(".tokens .id").Select(i => int.Parse(i.TextContent))];
            Assert.Equal([.. batch.Tokens[64..96].Select(t => (int)t), (int)batch.Targets[95]], ids);
            Assert.Contains($"of {source.TrainingWindows:N0} in an epoch", page.Find(".row-tools").TextContent, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_set_that_is_too_small_for_a_row_says_so_and_one_that_is_too_small_to_hold_out_holds_out_nothing()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.MakeText(store, "tales", ["one fox", "two hens"]));
        IRenderedComponent<DatasetPage> page = await OpenAsync(host, "tales", "?view=loss&tokens_per_sample=4");
        Assert.Contains("None are held out", page.Find(".preview").TextContent, StringComparison.Ordinal);
        await page.Find("#loss-tokens_per_sample").ChangeAsync("4000");
        page.WaitForAssertion(() => Assert.Contains("tokens", page.Find(".preview [role=alert]").TextContent, StringComparison.Ordinal));
    }

    [Fact]
    public async Task While_it_is_being_prepared_its_page_shows_how_far()
    {
        await using PageHost host = await PageHost.StartAsync(store => _ = new Scribe(store, new RunConfig { Kind = RunKind.Prepare, Name = "Soon", Prepare = new PrepareConfig { Dataset = "soon" } }));
        IRenderedComponent<DatasetPage> page = host.Page.Render<DatasetPage>(p => p.Add(d => d.Name, "soon"));
        page.WaitForAssertion(() => Assert.Equal("soon is being prepared", page.Find("h1").TextContent));
        Assert.Single(page.FindAll("[data-run]"));
    }

    [Fact]
    public async Task A_new_run_begins_with_the_data_set_of_the_address()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Dataset.Make(store, "aaa", documents: 400);
            Dataset.Make(store, "tales", documents: 400);
        });
        host.Open("/runs/new?dataset=tales");
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        Assert.Equal("tales", page.Find("#setting-data-dataset").GetAttribute("value"));
        page.FindAll(".preset")[1].Click();
        Assert.Equal("tales", page.Find("#setting-data-dataset").GetAttribute("value"));
    }

    private static async Task<IRenderedComponent<DatasetPage>> OpenAsync(PageHost host, string name, string query = "")
    {
        host.Open($"/datasets/{name}{query}");
        IRenderedComponent<DatasetPage> page = host.Page.Render<DatasetPage>(p => p.Add(d => d.Name, name));
        await page.WaitForStateAsync(() => page.FindAll(".preview").Count > 0 && !page.Find(".preview").TextContent.Contains("Reading…", StringComparison.Ordinal), Wait.Longest);
        return page;
    }

    private static Task Press(IRenderedComponent<DatasetPage> page, string text) => page.FindAll("button").Single(b => b.TextContent == text).ClickAsync(new());

    private static TokenStatistics Counted(Store store, string name)
    {
        using TokenFile file = TokenFile.Open(store.DatasetTokens(name));
        return TokenStatistics.Of(file);
    }

    private static (int[] Ids, Tokenizer Tokenizer) Document(Store store, string name, long number)
    {
        using TokenFile file = TokenFile.Open(store.DatasetTokens(name));
        (long start, int length) = file.Document(number);
        int[] ids = new int[length];
        file.Read(start, ids);
        return (ids, Tokenizer.Load(store.DatasetFolder(name)));
    }
}
