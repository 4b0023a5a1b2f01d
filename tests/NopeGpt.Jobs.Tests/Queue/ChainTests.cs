using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class ChainTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_chain_of_all_kinds_leads_from_nothing_to_a_model_for_other_programs()
    {
        await using QueueHarness queue = await QueueHarness.StartTrainingAsync(folder["root"]);
        string talks = folder["talks.jsonl"];
        await File.WriteAllLinesAsync(talks, StoryGenerator.Stories(3).Take(24).Select((story, i) => JsonSerializer.Serialize(new
        {
            messages = new object[] { new { role = "user", content = $"Tell story {i}" }, new { role = "assistant", content = story[..60] } },
        })));
        RunConfig tokenizer = new() { Kind = RunKind.Tokenizer, Tokenizer = new TokenizerConfig { Name = "words", Source = PrepareConfig.Stories, VocabularySize = 300, MaximumBytes = 60_000 } };
        RunConfig text = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 60_000, VocabularySize = 350, Dataset = "text" } };
        RunConfig pretrain = new()
        {
            Kind = RunKind.Pretrain, Threads = 1, Device = "cpu",
            Model = new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 16, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1 },
            Data = new DataConfig { TokensPerSample = 32, NumEvalSamples = 4 },
            Optimizer = new OptimizerConfig { WarmupSteps = 1 }, Training = new TrainingConfig { BatchSize = 2, MaxSteps = 3, SampleTokens = 2 },
        };
        RunConfig finetune = RunConfig.For(RunKind.Finetune) with
        {
            Threads = 1, Device = "cpu", Data = new DataConfig { NumEvalSamples = 4 }, Finetune = new FinetuneConfig { MaxTokensPerSample = 256, LoraRank = 2 },
            Training = new TrainingConfig { BatchSize = 2, MaxSteps = 3, SampleTokens = 2, SamplePrompts = ["Hello"] },
        };
        RunConfig[] steps =
        [
            tokenizer, text,
            new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Source = talks, Kind = PrepareKind.Chat, Dataset = "talks" } },
            pretrain, finetune,
            new RunConfig { Kind = RunKind.Evaluate, Threads = 1, Device = "cpu", Evaluate = new EvaluateConfig { Prompts = ["Once"], MaxTokens = 2 } },
            new RunConfig { Kind = RunKind.Export, Threads = 1, Export = new ExportConfig { Out = folder["exported"], Dtype = ExportType.Bfloat16 } },
        ];
        IReadOnlyList<string> ids = await queue.Queue.AddChainAsync(steps, 3, ["all", "kinds"]);
        foreach (string id in ids)
        {
            RunRow row = await queue.UntilAsync(id, r => r.State is RunState.Completed or RunState.Failed or RunState.Cancelled, "its end");
            Assert.True(row.State == RunState.Completed, $"{row.Kind}: {row.Reason}\n{File.ReadAllText(queue.Folder(id).LogPath)}");
            Assert.Equal((3, "all,kinds"), (row.Priority, row.Tags));
        }
        string Of(RunKind kind) => ids[Array.FindIndex(steps, s => s.Kind == kind)];
        Assert.Equal("text", queue.Folder(Of(RunKind.Pretrain)).Read().Config.Data.Dataset);
        Assert.Equal(["talks"], queue.Folder(Of(RunKind.Finetune)).Read().Config.Finetune.DatasetSubsets);
        // Its holdout is the text that the base has not seen, and the markers of fine-tuning do not keep it from that.
        Assert.Contains(queue.Folder(Of(RunKind.Evaluate)).Events().OfType<MetricsEvent>(), m => m.Values.ContainsKey("eval/loss"));
        RecognisedModel exported = HubLayout.Recognise(folder["exported"]);
        Assert.Equal(("nope-gpt", 304), (exported.Layout, exported.Config.VocabularySize));
        Assert.False(new CheckpointFiles(folder["exported"]).IsAdapter);
        Assert.True(File.Exists(Path.Combine(folder["exported"], "tokenizer.json")));
        Assert.DoesNotContain("libtorch", File.ReadAllText(queue.Folder(Of(RunKind.Prepare)).LogPath), StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_tokenizer_that_comes_after_a_data_set_is_trained_on_its_text_and_used_by_the_next()
    {
        await using QueueHarness queue = await QueueHarness.StartTrainingAsync(folder["root"]);
        RunConfig text = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 20_000, VocabularySize = 350, Dataset = "first" } };
        IReadOnlyList<string> ids = await queue.Queue.AddChainAsync(
        [
            text, new RunConfig { Kind = RunKind.Tokenizer, Tokenizer = new TokenizerConfig { Name = "words", VocabularySize = 300, MaximumBytes = 20_000 } },
            text with { Prepare = text.Prepare with { Dataset = "second" } },
        ]);
        await queue.UntilAsync(ids[^1], RunState.Completed);
        Assert.Equal([350, 300], new[] { "first", "second" }.Select(name => DatasetInfo.Read(queue.Store.DatasetFolder(name)).VocabularySize));
        // A name that an earlier step takes is told before anything is made.
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddChainAsync(
            [text with { Prepare = text.Prepare with { Dataset = "words2" } }, new RunConfig { Kind = RunKind.Tokenizer, Tokenizer = new TokenizerConfig { Name = "words2" } }]));
        Assert.Equal("step 2 (tokenizer): tokenizer.name", Assert.Single(e.Problems).Field);
    }

    [Fact]
    public async Task Everything_wrong_with_any_step_is_told_at_once_and_nothing_is_queued()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        ModelConfig learned = ModelPresets.Find("gpt2-tiny")!.Config with { VocabularySize = 0 };
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddChainAsync(
        [
            new RunConfig { Kind = RunKind.Prepare, Threads = -1, Prepare = new PrepareConfig { Dataset = "text" } },
            new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Source = folder["nothing.jsonl"], Kind = PrepareKind.Chat, Dataset = "text" } },
            new RunConfig { Kind = RunKind.Pretrain, Model = learned, Data = new DataConfig { Mixture = ["other=1"], TokensPerSample = 16 } },
            RunConfig.For(RunKind.Finetune) with { Finetune = new FinetuneConfig { DatasetSubsets = ["typo"] } },
            RunConfig.For(RunKind.Finetune) with { Finetune = new FinetuneConfig { DatasetSubsets = ["text"] } },
            new RunConfig { Kind = RunKind.Evaluate, Data = new DataConfig { Dataset = "elsewhere" } },
            new RunConfig { Kind = RunKind.Export, Export = new ExportConfig { Layout = "nope-gpt", Out = folder["out"] } },
            new RunConfig { Kind = RunKind.Export, Export = new ExportConfig { Layout = "gpt3", Out = folder["out"] } },
        ], 1000, ["a,b"]));
        Assert.Equal(
        [
            "priority", "step 1 (prepare): threads", "step 2 (prepare): prepare.dataset", "step 2 (prepare): prepare.source",
            "step 4 (fine-tune): finetune.dataset_subsets", "step 4 (fine-tune): finetune.max_tokens_per_sample", "step 5 (fine-tune): finetune.base_checkpoint_path", "step 6 (evaluate): data.dataset",
            "step 7 (export): export.layout", "step 8 (export): export.layout", "step 8 (export): export.out", "tags",
        ], e.Problems.Select(p => p.Field).Distinct().Order(StringComparer.Ordinal));
        Assert.Contains("will be an adapter of step 4 (fine-tune)", e.Message, StringComparison.Ordinal);
        Assert.Contains("is made by step 1 (prepare) in another way", e.Message, StringComparison.Ordinal);
        Assert.Contains("positions = learned", e.Message, StringComparison.Ordinal);
        Assert.Empty(await queue.Queue.ListAsync());
        Assert.Empty(Directory.EnumerateFileSystemEntries(queue.Store.RunsFolder));
        Assert.Equal("runs", Assert.Single((await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddChainAsync([]))).Problems).Field);
    }

    [Fact]
    public async Task A_chain_that_cannot_be_added_whole_is_not_added_at_all()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder["root"]);
        RunConfig[] steps = [QueueHarness.Config("steps:1", RunKind.Prepare), QueueHarness.Config("steps:1", RunKind.Pretrain)];
        // The folders are made, and the table is not reached any more.
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => queue.Queue.AddChainAsync(steps, cancel: new CancellationToken(canceled: true)));
        Assert.Empty(Directory.EnumerateFileSystemEntries(queue.Store.RunsFolder));
        Directory.Move(queue.Store.RunsFolder, queue.Store.RunsFolder + ".away");
        await File.WriteAllTextAsync(queue.Store.RunsFolder, "");
        Assert.Equal(ExitCode.DiskFull, (await Assert.ThrowsAsync<UserException>(() => queue.Queue.AddChainAsync(steps))).ExitCode);
        File.Delete(queue.Store.RunsFolder);
        Directory.Move(queue.Store.RunsFolder + ".away", queue.Store.RunsFolder);
        Assert.Empty(await queue.Queue.ListAsync());
    }

    [Fact]
    public async Task A_failure_in_the_middle_cancels_the_rest_and_resuming_it_brings_them_back()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        IReadOnlyList<string> ids = await queue.Queue.AddChainAsync(
        [
            QueueHarness.Config("steps:1", RunKind.Prepare), QueueHarness.Config("exit:4", RunKind.Pretrain), QueueHarness.Config("steps:2", RunKind.Evaluate),
        ]);
        string beside = await queue.AddAsync("steps:4", RunKind.Evaluate, ids[2]);
        string taken = await queue.AddAsync("steps:5", RunKind.Evaluate, ids[2]);
        await queue.Queue.StopAsync(taken, StopRequest.Save);
        await queue.UntilAsync(ids[1], RunState.Failed);
        Assert.Equal("run exit:4, which it waits for, has failed", (await queue.UntilAsync(ids[2], RunState.Cancelled)).Reason);
        Assert.Equal("run steps:2, which it waits for, was cancelled, because run exit:4 has failed", (await queue.UntilAsync(beside, RunState.Cancelled)).Reason);
        Assert.Equal(RunState.Completed, (await queue.Queue.FindAsync(ids[0]))!.State);

        RunFolder failed = queue.Folder(ids[1]);
        RunRecord record = failed.Read();
        failed.Write(record with { Config = record.Config with { Name = "steps:9" } });
        await queue.Queue.ResumeAsync(ids[1]);
        foreach (string id in new[] { ids[1], ids[2], beside }) Assert.Equal("", (await queue.UntilAsync(id, RunState.Completed)).Fault);
        Assert.Equal((RunState.Cancelled, "taken out of the queue; resume to put it back"), ((await queue.Queue.FindAsync(taken))!.State, (await queue.Queue.FindAsync(taken))!.Reason));
    }

    [Fact]
    public async Task A_step_that_a_person_takes_out_takes_its_followers_with_it_and_back()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        IReadOnlyList<string> ids = await queue.Queue.AddChainAsync([QueueHarness.Config("steps:1", RunKind.Prepare), QueueHarness.Config("steps:2", RunKind.Pretrain), QueueHarness.Config("steps:3", RunKind.Evaluate)]);
        await queue.Queue.StopAsync(ids[0], StopRequest.Save);
        RunRow last = await queue.UntilAsync(ids[2], RunState.Cancelled);
        Assert.Equal((ids[0], "run steps:2, which it waits for, was cancelled, because run steps:1 was cancelled"), (last.Fault, last.Reason));
        await queue.Queue.ResumeAsync(ids[0]);
        Assert.Equal(ids, (await queue.Queue.ListAsync(RunState.Queued)).Select(r => r.Id));
        queue.Queue.Change(paused: false);
        await queue.UntilAsync(ids[2], RunState.Completed);
    }

    [Fact]
    public async Task A_run_that_was_queued_without_the_dashboard_is_waited_for_though_it_is_not_in_the_table_yet()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        RunFolder Made(string id, params string[] after) => RunFolder.Create(queue.Store, new RunRecord(RunRecord.CurrentFormat, id, DateTimeOffset.UtcNow, after, QueueHarness.Config("steps:1", RunKind.Prepare)));
        RunFolder second = Made("20260101-000000-0001", "20260101-000000-0002"), first = Made("20260101-000000-0002");
        second.RequestQueue();
        await WaitFor.TrueAsync(() => queue.Queue.FindAsync(second.Id).GetAwaiter().GetResult()?.Reason == $"waiting for run {first.Id}, which is not in the list yet", "the reason");
        first.RequestQueue();
        await queue.UntilAsync(second.Id, RunState.Completed);
    }

    [Fact]
    public async Task A_run_takes_what_it_leaves_open_from_all_runs_that_it_waits_for()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        string prepare = await queue.AddAsync("steps:1", RunKind.Prepare), pretrain = await queue.AddAsync("steps:2", RunKind.Pretrain, prepare);
        string talks = (await queue.Queue.AddAsync(QueueHarness.Config("steps:1", RunKind.Prepare) with { Prepare = new PrepareConfig { Source = Source(), Kind = PrepareKind.Chat, Dataset = "talks" } }, [prepare])).Id;
        Assert.Equal("nothing", queue.Folder(talks).Read().Config.Prepare.Tokenizer);
        string tuned = (await queue.Queue.AddAsync(RunConfig.For(RunKind.Finetune) with { Name = "steps:1" }, [pretrain, talks])).Id;
        FinetuneConfig filled = queue.Folder(tuned).Read().Config.Finetune;
        Assert.Equal((pretrain, "talks"), (filled.BaseCheckpointPath, Assert.Single(filled.DatasetSubsets)));
        string export = (await queue.Queue.AddAsync(new RunConfig { Kind = RunKind.Export, Name = "steps:1" }, [tuned])).Id;
        Assert.Equal(tuned, queue.Folder(export).Read().Config.Export.Checkpoint);
        Assert.Equal(["after", "after"], (await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddAsync(QueueHarness.Config("steps:1", RunKind.Prepare), ["../up", "nobody", prepare]))).Problems.Select(p => p.Field));
        // Waiting for a run that makes nothing of it fills nothing.
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddAsync(RunConfig.For(RunKind.Finetune), [prepare]));
        Assert.Equal(["finetune.base_checkpoint_path", "finetune.dataset_subsets"], e.Problems.Select(p => p.Field).Order());

        string Source()
        {
            File.WriteAllText(folder["talks.jsonl"], "{}");
            return folder["talks.jsonl"];
        }
    }
}
