using AngleSharp.Dom;
using Bunit;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Tests.Pages;

public sealed class NewRunTests
{
    [Fact]
    public async Task Every_setting_of_a_training_run_has_a_field_with_a_label_and_a_help_text()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        foreach (Setting setting in Settings.All.Where(s => s.Section is "model" or "data" or "optimizer" or "training" || (s.Section.Length == 0 && s.Name != "kind")))
        {
            IElement field = page.Find($"[id='field-{setting.Path}']");
            IElement control = field.QuerySelector("input, select")!;
            Assert.Equal(control.Id, field.QuerySelector("label")!.GetAttribute("for"));
            Assert.True(field.QuerySelector(".help")!.TextContent.Length > 10, $"{setting.Path} has no help text");
        }
    }

    [Fact]
    public async Task What_is_wrong_is_told_beside_the_field_and_in_the_list_and_nothing_can_be_started()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.Find("#setting-optimizer-learning_rate").Input("fast");
        page.Find("#setting-model-num_q_heads").Input("5");
        Assert.Contains("must be a number", page.Find("[id='field-optimizer.learning_rate'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("optimizer.learning_rate", page.Find(".problems").TextContent, StringComparison.Ordinal);
        Assert.Contains("num_q_heads = 5", page.Find(".problems").TextContent, StringComparison.Ordinal);
        Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));

        page.Find("#setting-optimizer-learning_rate").Input("0.001");
        Assert.Empty(page.FindAll("[id='field-optimizer.learning_rate'] .wrong"));
        Assert.Equal("0.001", page.Find("#setting-optimizer-learning_rate").GetAttribute("value"));
    }

    [Fact]
    public async Task A_data_set_gives_the_sizes_and_the_start_leads_to_the_run()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.Make(store, "tales", documents: 400));
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.FindAll(".preset").Single(b => b.TextContent.StartsWith("stories-tiny", StringComparison.Ordinal)).Click();
        Assert.Equal("tales", page.Find("#setting-data-dataset").GetAttribute("value"));
        Assert.Empty(page.FindAll(".problems"));
        page.Find("#setting-name").Input("By hand");
        string summary = page.Find(".summary").TextContent;
        Assert.Contains("61.4k", summary, StringComparison.Ordinal); // 120 steps x 8 samples x 64 tokens
        Assert.DoesNotContain("choose a data set", summary, StringComparison.Ordinal);

        await page.Find("form").SubmitAsync();
        string id = Assert.Single(await host.Queue.ListAsync()).Id;
        Assert.EndsWith($"/runs/{id}", host.Address, StringComparison.Ordinal);
        Assert.True(RunFolder.TryOpen(host.Store, id, out RunFolder? folder));
        RunConfig config = folder.Read().Config;
        Assert.Equal(("By hand", "tales", 120), (config.Name, config.Data.Dataset, config.Training.MaxSteps));
    }

    [Fact]
    public async Task Several_devices_and_their_sharding_level_are_checked_started_and_shown()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.Make(store, "tales", documents: 400));
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.FindAll(".preset").Single(b => b.TextContent.StartsWith("stories-tiny", StringComparison.Ordinal)).Click();
        page.Find("#setting-device").Input("cpu,cuda,tpu");
        Assert.Contains("is not a device", page.Find("[id='field-device'] .wrong").TextContent, StringComparison.Ordinal);
        page.Find("#setting-device").Input("cpu,cpu");
        page.Find("#setting-training-sharding_level").Input("1");
        Assert.Contains("choose 0 (none), 2", page.Find("[id='field-training.sharding_level'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("leaves nothing for each of 2 devices", page.Find("[id='field-training.gradient_accumulation_steps'] .wrong").TextContent, StringComparison.Ordinal);
        page.Find("#setting-training-sharding_level").Input("3");
        page.Find("#setting-training-gradient_accumulation_steps").Input("3");
        Assert.Empty(page.FindAll(".problems"));
        // 120 steps of 8 x 64 tokens and one micro-batch for each device: the third does not divide.
        Assert.Contains("123k", page.Find(".summary").TextContent, StringComparison.Ordinal);
        await page.Find("form").SubmitAsync();
        string id = Assert.Single(await host.Queue.ListAsync()).Id;
        IRenderedComponent<RunPage> run = host.Page.Render<RunPage>(p => p.Add(r => r.Id, id));
        run.WaitForAssertion(() => Assert.Contains("cpu,cpu", run.Find(".config").TextContent, StringComparison.Ordinal));
        Assert.Equal("3", run.FindAll(".config dt").Single(t => t.TextContent == "sharding_level").NextElementSibling!.TextContent);
    }

    [Fact]
    public async Task A_run_like_another_begins_with_its_configuration()
    {
        string id = "";
        await using PageHost host = await PageHost.StartAsync(store => id = Story.Training(store, "Story model", RunState.Completed).Id);
        host.Open($"/runs/new?from={id}");
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        Assert.Equal("100", page.Find("#setting-training-max_steps").GetAttribute("value"));
        Assert.Empty(page.FindAll(".preset[aria-pressed=true]"));
    }

    [Fact]
    public async Task A_run_whose_record_is_damaged_does_not_keep_the_form_away()
    {
        string id = "";
        await using PageHost host = await PageHost.StartAsync(store => id = Story.Training(store, "Story model", RunState.Completed).Id);
        await File.WriteAllTextAsync(RunFolder.Open(host.Store.RunFolder(id)).RecordPath, "{");
        host.Open($"/runs/new?from={id}");
        Assert.NotEmpty(host.Page.Render<NewRun>().FindAll(".preset[aria-pressed=true]"));
    }

    [Fact]
    public async Task A_fine_tuning_has_its_own_fields_and_what_is_wrong_with_them_is_told()
    {
        string id = "";
        await using PageHost host = await PageHost.StartAsync(store => id = Story.Training(store, "Story model", RunState.Completed).Id);
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.FindAll(".preset").Single(b => b.TextContent.StartsWith("fine-tune", StringComparison.Ordinal)).Click();
        foreach (Setting setting in Settings.All.Where(s => s.Path != "kind" && RunConfigChecks.Applies(s, RunKind.Finetune))) Assert.NotNull(page.Find($"[id='field-{setting.Path}'] .help"));
        Assert.Empty(page.FindAll("#setting-model-dropout, #setting-data-dataset, #architecture"));
        Assert.Contains(id, page.FindAll("[id='field-finetune.base_checkpoint_path'] option").Select(o => o.GetAttribute("value")));
        page.Find("#setting-finetune-lora_rank").Input("0");
        Assert.Contains("must lie from 1", page.Find("[id='field-finetune.lora_rank'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.Contains("name one or more chat data sets", page.Find("[id='field-finetune.dataset_subsets'] .wrong").TextContent, StringComparison.Ordinal);
        Assert.True(page.Find("button[type=submit]").HasAttribute("disabled"));
    }

    [Fact]
    public async Task Two_clicks_start_one_run()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.Make(store, "tales", documents: 400));
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.FindAll(".preset").Single(b => b.TextContent.StartsWith("stories-tiny", StringComparison.Ordinal)).Click();
        await page.Find("form").SubmitAsync();
        await page.Find("form").SubmitAsync();
        Assert.Single(await host.Queue.ListAsync());
    }

    [Fact]
    public void The_time_of_a_run_is_estimated_from_the_speed_and_size_of_another()
    {
        using NopeGpt.Tests.TemporaryFolder folder = new();
        Store store = new(folder.Path);
        RunConfig small = new() { Model = new() { VocabularySize = 100, EmbeddingDimensions = 16, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1 }, Training = new() { MaxSteps = 10, BatchSize = 2 }, Data = new() { TokensPerSample = 50 } };
        RunEstimate same = RunEstimate.Of(small, new DatasetFacts(store), (small, 200));
        Assert.Equal(1000, same.Tokens);
        Assert.Equal(5, same.Seconds!.Value, 6);
        Assert.Equal(small.Model.ParameterCount, same.Parameters);
        Assert.Equal(small.Model.FlopsPerToken(50) * 1000, same.Flops!.Value, 3);
    }

    [Fact]
    public async Task An_architecture_sets_the_model_and_leaves_the_rest_and_yes_or_no_is_a_choice()
    {
        await using PageHost host = await PageHost.StartAsync(store => Dataset.Make(store, "tales", documents: 400));
        IRenderedComponent<NewRun> page = host.Page.Render<NewRun>();
        page.FindAll(".preset").Single(b => b.TextContent.StartsWith("stories-tiny", StringComparison.Ordinal)).Click();
        page.Find("#setting-training-max_steps").Input("77");
        page.Find("#architecture").Change("gpt2-tiny");
        Assert.Equal("learned", page.Find("#setting-model-positions").GetAttribute("value"));
        Assert.Equal("0", page.Find("#setting-model-vocabulary_size").GetAttribute("value"));
        Assert.Equal("77", page.Find("#setting-training-max_steps").GetAttribute("value"));
        Assert.Equal("true", page.Find("#setting-model-linear_bias").GetAttribute("value"));
        page.Find("#setting-model-tied_head").Change("false");
        Assert.Equal("false", page.Find("#setting-model-tied_head").GetAttribute("value"));
        page.Find("#setting-model-context_length").Input("32");
        Assert.Contains("context_length", page.Find(".problems").TextContent, StringComparison.Ordinal);
        page.Find("#setting-model-context_length").Input("64");
        Assert.Equal("", string.Concat(page.FindAll(".problems").Select(p => p.TextContent)));
        await page.Find("form").SubmitAsync();
        Assert.True(RunFolder.TryOpen(host.Store, Assert.Single(await host.Queue.ListAsync()).Id, out RunFolder? folder));
        Model.ModelConfig model = folder.Read().Config.Model;
        Assert.Equal((Model.Positions.Learned, false, true), (model.Positions, model.TiedHead, model.LinearBias));

        page = host.Page.Render<NewRun>();
        string before = page.Find("#setting-model-embedding_dimensions").GetAttribute("value")!;
        page.Find("#architecture").Change("lil-lm");
        page.Find("#architecture").Change("");
        Assert.Equal(before, page.Find("#setting-model-embedding_dimensions").GetAttribute("value"));
    }
}
