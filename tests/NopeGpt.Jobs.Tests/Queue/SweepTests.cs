using System.Globalization;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Tests.Queue;

public sealed class SweepTests
{
    private static readonly RunConfig Start = new() { Name = "base", Data = new DataConfig { Dataset = "stories" } };

    [Fact]
    public void A_random_grid_is_the_naive_product_of_its_axes()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        Setting[] known = [.. Settings.All.Where(s => s.Path is "optimizer.learning_rate" or "seed" or "training.batch_size" or "data.packed" or "optimizer.optimizer" or "data.dataset" or "training.max_tokens" or "optimizer.weight_decay")];
        for (int trial = 0; trial < 100; trial++)
        {
            random.Shuffle(known);
            (Setting Setting, string[] Words)[] axes = [.. known.Take(random.Next(1, 5)).Select(s => (s, Words(s, random)))];
            // The oracle: nested loops over the words, each set alone.
            List<RunConfig> expected = [Start];
            foreach ((Setting setting, string[] words) in axes)
                expected = [.. expected.SelectMany(config => words.Select(word => Settings.BindText(config, setting.Path, word, [])))];
            IReadOnlyList<SweepMember> members = Members([.. axes.Select(a => random.Next(2) == 0 || a.Setting.Type == typeof(string)
                ? new SweepAxis(Spelled(a.Setting, random), string.Join(random.Next(2) == 0 ? "," : " , ", a.Words))
                : new SweepAxis(Spelled(a.Setting, random), null, JsonSerializer.SerializeToElement(a.Words.Select(w => Settings.Get(Settings.BindText(Start, a.Setting.Path, w, []), a.Setting)), Settings.Json)))]);
            Assert.True(expected.Select(Text).SequenceEqual(members.Select(m => Text(m.Config))), $"seed {seed}, trial {trial}: {string.Join("; ", axes.Select(a => $"{a.Setting.Path} {string.Join(',', a.Words)}"))}");
            Assert.True(members.Select(m => m.Name).Distinct().Count() == members.Count && members.All(m => m.Name == m.Config.Name && m.Config.Problems().All(p => p.Field != "name")), $"seed {seed}, trial {trial}: {string.Join("; ", members.Select(m => m.Name))}");
        }
    }

    [Theory]
    [InlineData("seed=1..3", "1|2|3")]
    [InlineData("seed=18446744073709551614..18446744073709551615", "18446744073709551614|18446744073709551615")]
    [InlineData("seed=0..18446744073709551614+3", "0|9223372036854775807|18446744073709551614")]
    [InlineData("training.max_steps=1..10+4", "1|4|7|10")]
    [InlineData("batch_size=8..64*4", "8|16|32|64")]
    [InlineData("--batch-size=64..8*4", "64|32|16|8")]
    [InlineData("training.keep_checkpoints=1..100*3", "1|10|100")]
    [InlineData("optimizer.warmup_steps=1e1..1e3*3", "10|100|1000")]
    [InlineData("optimizer.learning_rate=1e-4,3e-4,.001", "0.0001|0.0003|0.001")]
    [InlineData("learning_rate=1e-4..1e-2*3", "0.0001|0.001|0.01")]
    [InlineData("learning_rate=1e-2..1e-4*3", "0.01|0.001|0.0001")]
    [InlineData("weight_decay=0..1+5", "0|0.25|0.5|0.75|1")]
    [InlineData("weight_decay=0..2", "0|1|2")]
    [InlineData("beta2_decay=-0.8..-0.2*3", "-0.8|-0.4|-0.2")]
    [InlineData("weight_decay=0.1, 0.2..0.4+3", "0.1|0.2|0.3|0.4")]
    [InlineData("lr=1e-3,1e-2", "0.001|0.01")]
    [InlineData("data.packed=true,false", "True|False")]
    [InlineData("optimizer=muon,adamw", "Muon|Adamw")]
    [InlineData("schedule=warmup_stable_decay,warmup-stable-decay,cosine", null)]
    [InlineData("anneal_learning_rate=true,false", "Linear|Constant")]
    [InlineData("ddp_sharding_level=0,2..3", "0|2|3")]
    [InlineData("data.dataset=../a/tokens.bin,b..c", "../a/tokens.bin|b..c")]
    [InlineData("data.dataset=[\"a,b\",\"c\"]", "a,b|c")]
    public void Values_and_ranges_are_read(string words, string? expected)
    {
        List<Problem> problems = [];
        AxisValues? axis = AxisValues.Read(SweepAxis.Parse(words), Start, problems);
        if (expected is null)
        {
            Assert.Contains("more than once, as values 1 and 2", Assert.Single(problems).Message, StringComparison.Ordinal);
            return;
        }
        Assert.Empty(problems);
        string Word(object? v) => v is double number ? number.ToString("G9", CultureInfo.InvariantCulture) : Convert.ToString(v, CultureInfo.InvariantCulture)!;
        Assert.Equal(expected.Split('|').Select(e => axis!.Setting.Type == typeof(double) ? Word(double.Parse(e, CultureInfo.InvariantCulture)) : e), axis!.Values.Select(Word));
    }

    [Fact]
    public void Ranges_keep_their_ends_and_their_factor_or_distance()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        for (int trial = 0; trial < 200; trial++)
        {
            double from = Math.Pow(10, random.NextDouble() * 8 - 6), to = Math.Pow(10, random.NextDouble() * 8 - 6);
            int count = random.Next(2, 12);
            foreach (char kind in "*+")
            {
                string text = string.Create(CultureInfo.InvariantCulture, $"{from:R}..{to:R}{kind}{count}");
                double[] points = [.. AxisRange.Points(text, false, 100).Select(p => double.Parse(p, CultureInfo.InvariantCulture))];
                Assert.True(points.Length == count && points[0] == from && points[^1] == to, $"seed {seed}: {text} gives {string.Join(' ', points)}");
                for (int i = 0; i < count; i++)
                {
                    double part = (double)i / (count - 1), exact = kind == '*' ? Math.Exp(Math.Log(from) + ((Math.Log(to) - Math.Log(from)) * part)) : ((1 - part) * from) + (part * to);
                    Assert.True(Math.Abs(points[i] - exact) <= 1e-10 * Math.Max(from, to), $"seed {seed}: {text} has {points[i]} for {exact}");
                }
            }
        }
    }

    [Theory]
    [InlineData("learning_rat=1,2", "learning_rat", "did you mean learning_rate?")]
    [InlineData("learning_rate", "optimizer.learning_rate", "needs values")]
    [InlineData("learning_rate=", "optimizer.learning_rate", "empty value")]
    [InlineData("learning_rate=1,,2", "optimizer.learning_rate", "empty value")]
    [InlineData("learning_rate=fast", "optimizer.learning_rate", "must be a number")]
    [InlineData("learning_rate=1e-4..1e-3", "optimizer.learning_rate", "number of points")]
    [InlineData("learning_rate=1e-4..1e-3*1", "optimizer.learning_rate", "from 2")]
    [InlineData("learning_rate=1e-4..1e-3*99999999999", "optimizer.learning_rate", "from 2")]
    [InlineData("learning_rate=0..1e-3*4", "optimizer.learning_rate", "cannot grow by a factor")]
    [InlineData("learning_rate=-1..1*4", "optimizer.learning_rate", "cannot grow by a factor")]
    [InlineData("learning_rate=1e-4..x*4", "optimizer.learning_rate", "is no range")]
    [InlineData("learning_rate=1e-4...1e-3*4x", "optimizer.learning_rate", "is no range")]
    [InlineData("learning_rate=1e999..2*4", "optimizer.learning_rate", "is no range")]
    [InlineData("learning_rate=1e-3,0.001", "optimizer.learning_rate", "as values 1 and 2")]
    [InlineData("batch_size=1.5..3+2", "training.batch_size", "whole numbers")]
    [InlineData("batch_size=1..3+9", "training.batch_size", "more than once")]
    [InlineData("seed=3..1", "seed", "ends before it begins")]
    [InlineData("seed=0..18446744073709551615", "seed", "at most 10000")]
    [InlineData("seed=[1,2", "seed", "none")]
    [InlineData("seed=[]", "seed", "no values")]
    [InlineData("seed=[1,-2]", "seed", "whole number")]
    [InlineData("seed=[\"1\"]", "seed", "whole number")]
    [InlineData("optimizer=sgd,adamw", "optimizer.optimizer", "one of muon")]
    [InlineData("sample_prompts=a,b", "training.sample_prompts", "JSON array of lists")]
    [InlineData("sample_prompts=[\"a\"]", "training.sample_prompts", "a list of texts")]
    [InlineData("lora_rank=4,8", "lora_rank", "does not read finetune.lora_rank")]
    [InlineData("=1,2", "", "no such setting")]
    public void What_is_malformed_is_refused_under_its_axis(string words, string field, string says)
    {
        List<Problem> problems = [];
        Assert.Null(AxisValues.Read(SweepAxis.Parse(words), Start, problems));
        Assert.All(problems, p => Assert.Equal(field, p.Field));
        Assert.Contains(problems, p => p.Message.Contains(says, StringComparison.Ordinal) || (says.StartsWith("one of", StringComparison.Ordinal) && p.Message.Contains("one of", StringComparison.Ordinal)));
    }

    [Fact]
    public void Lists_in_each_run_are_given_as_lists_of_lists()
    {
        IReadOnlyList<SweepMember> members = Members([SweepAxis.Parse("data.mixture=[[],[\"a=1\",\"b=0.5\"]]")]);
        Assert.Equal([[], ["a=1", "b=0.5"]], members.Select(m => m.Config.Data.Mixture));
        Assert.Equal(["mixture none", "mixture a=1 | b=0.5"], members.Select(m => m.Name));
    }

    [Fact]
    public void Runs_are_named_after_what_differs()
    {
        Assert.Equal(["lr 3e-4, seed 1", "lr 3e-4, seed 2", "lr 1e-3, seed 1", "lr 1e-3, seed 2"], Names("learning_rate=3e-4,1e-3", "batch_size=4", "seed=1..2"));
        Assert.Equal(["optimizer adamw, packed true", "optimizer adamw, packed false", "optimizer muon, packed true", "optimizer muon, packed false"], Names("optimizer=adamw,muon", "data.packed=true,false"));
        // More digits where three do not tell them apart.
        Assert.Equal(["lr 0.1", "lr 0.10001"], Names("learning_rate=0.1,0.10001"));
        // The file's name, and its whole path where that is the same.
        Assert.Equal(["dataset one.bin", "dataset two.bin"], Names("data.dataset=data/one.bin,data/two.bin"));
        Assert.Equal(["dataset data/tokens.bin", "dataset other/tokens.bin"], Names("data.dataset=data/tokens.bin,other/tokens.bin"));
        string[] most = Names("data.dataset=" + new string('a', 100) + "1," + new string('a', 100) + "2", "name=" + new string('b', 100));
        Assert.All(most, n => Assert.InRange(n.Length, 1, 80));
        Assert.Equal(2, most.Distinct().Count());
        Assert.Equal(["seed 1"], Names("seed=1"));
    }

    [Theory]
    [InlineData(0.0003, 3, "3e-4")]
    [InlineData(0.00021544, 3, "2.15e-4")]
    [InlineData(0.001, 3, "1e-3")]
    [InlineData(0.01, 3, "0.01")]
    [InlineData(0.1, 3, "0.1")]
    [InlineData(0, 3, "0")]
    [InlineData(2, 3, "2")]
    [InlineData(1000, 3, "1000")]
    [InlineData(-0.8, 3, "-0.8")]
    [InlineData(1e-30, 3, "1e-30")]
    [InlineData(2.5e8, 3, "2.5e8")]
    public void Numbers_are_written_short(double value, int digits, string expected) => Assert.Equal(expected, SweepLabels.Number(value, digits));

    [Fact]
    public void Everything_wrong_with_the_axes_is_told_at_once()
    {
        List<Problem> problems = [];
        Assert.Empty(Sweep.Read(Start, [SweepAxis.Parse("nothing=1"), SweepAxis.Parse("seed=a"), SweepAxis.Parse("lrs=1"), SweepAxis.Parse("training.batch_size=2,4"), SweepAxis.Parse("batch_size=8")], problems));
        Assert.Equal(["nothing", "seed", "lrs", "training.batch_size"], problems.Select(p => p.Field));
        problems.Clear();
        Assert.Empty(Sweep.Read(Start, [], problems));
        Assert.Equal("axes", Assert.Single(problems).Field);
        problems.Clear();
        Assert.Empty(Sweep.Read(Start, [SweepAxis.Parse("seed=1..5000"), SweepAxis.Parse("batch_size=1..5000"), SweepAxis.Parse("max_steps=1..5000"), SweepAxis.Parse("eval_interval=1..5000"), SweepAxis.Parse("checkpoint_interval=1..5000"), SweepAxis.Parse("keep_every=1..5000")], problems));
        Assert.Contains("15625000000000000000000 runs", Assert.Single(problems).Message, StringComparison.Ordinal);
    }

    private static string[] Names(params string[] axes) => [.. Members([.. axes.Select(SweepAxis.Parse)]).Select(m => m.Name)];

    private static IReadOnlyList<SweepMember> Members(IReadOnlyList<SweepAxis> axes)
    {
        List<Problem> problems = [];
        IReadOnlyList<AxisValues> read = Sweep.Read(Start, axes, problems);
        Assert.True(problems.Count == 0, string.Join("\n", problems));
        return Sweep.Expand(Start, read);
    }

    private static string Text(RunConfig config) => JsonSerializer.Serialize(config with { Name = "" }, Settings.Json);

    private static string Spelled(Setting setting, Random random) => random.Next(3) switch { 0 => setting.Path, 1 => setting.Path.Replace('_', '-'), _ => "--" + setting.Path };

    private static string[] Words(Setting setting, Random random)
    {
        int count = random.Next(1, 5);
        if (setting.Type == typeof(bool)) return random.Next(2) == 0 ? ["true", "false"] : ["false"];
        if (setting.Type.IsEnum) return [.. Enum.GetNames(setting.Type).Select(Settings.SnakeCase).Take(count)];
        HashSet<string> words = [];
        while (words.Count < count)
        {
            words.Add(setting.Type == typeof(string) ? "set" + random.Next(100)
                : setting.Type == typeof(double) ? Math.Round(random.NextDouble(), random.Next(1, 7)).ToString(random.Next(2) == 0 ? "R" : "0.######", CultureInfo.InvariantCulture)
                : random.Next(1, 1000).ToString(CultureInfo.InvariantCulture));
        }
        return [.. words];
    }
}
