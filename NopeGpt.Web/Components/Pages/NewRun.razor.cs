using Microsoft.AspNetCore.Components;
using Microsoft.AspNetCore.Components.Rendering;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;
using NopeGpt.Web.Components.Parts;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Components.Pages;

/// <summary>The form of a new training run.</summary>
public sealed partial class NewRun
{
    private RunForm _form = default!;
    private RunEstimate _estimate = default!;
    private DatasetFacts _datasets = default!;
    private string? _preset;
    private string? _architecture;
    private bool _starting;
    private IReadOnlyList<string> _bases = [];
    private (RunConfig Config, double TokensPerSecond)? _measured;

    [Inject] private Store Store { get; set; } = default!;

    [Inject] private RunQueue Queue { get; set; } = default!;

    [Inject] private RunFeed Feed { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Inject] private ISnackbar Snackbar { get; set; } = default!;

    /// <summary>The run whose configuration the form begins with.</summary>
    [SupplyParameterFromQuery(Name = "from")]
    public string? From { get; set; }

    /// <summary>The data set that the form begins with.</summary>
    [SupplyParameterFromQuery(Name = "dataset")]
    public string? Dataset { get; set; }

    protected override async Task OnInitializedAsync()
    {
        _datasets = new DatasetFacts(Store);
        RunConfig? old = From is { } id ? ConfigOf(id) : null;
        _preset = old is null ? Presets.All[0].Name : null;
        _form = new RunForm(Store, old is not null ? old with { Data = old.Data with { Dataset = Dataset ?? old.Data.Dataset } } : WithDataset(Presets.All[0].Config));
        _bases = [.. (await Queue.ListAsync()).Where(r => r.Kind.Trains() && Feed.Snapshot(r.Id).Checkpoints.Count > 0).OrderByDescending(r => r.Created).Select(r => r.Id)];
        await MeasureAsync();
        Estimate();
    }

    // The speed of the newest training run says how long this one will take on this machine.
    private async Task MeasureAsync()
    {
        foreach (RunRow run in (await Queue.ListAsync(kind: RunKind.Pretrain)).OrderByDescending(r => r.Created))
        {
            if (!Feed.Snapshot(run.Id).Metrics.TryGetValue("train/tokens_per_second", out double speed) || !(speed > 0)) continue;
            if (ConfigOf(run.Id) is not { } config) continue;
            _measured = (config, speed);
            return;
        }
    }

    // null where the folder is gone or its run.json damaged.
    private RunConfig? ConfigOf(string id)
    {
        try { return RunFolder.TryOpen(Store, id, out RunFolder? folder) ? folder.Read().Config : null; }
        catch (UserException) { return null; }
    }

    // A preset's data set may not be there; one that is serves as well.
    private RunConfig WithDataset(RunConfig config) => Dataset is { Length: > 0 } asked ? config with { Data = config.Data with { Dataset = asked } } :
        _datasets.Names.Count == 0 || _datasets.Names.Contains(config.Data.Dataset) ? config : config with { Data = config.Data with { Dataset = _datasets.Names[0] } };

    private void Take(Preset preset)
    {
        (_preset, _architecture) = (preset.Name, null);
        _form.Take(WithDataset(preset.Config));
        Estimate();
    }

    private void TakeFineTuning()
    {
        (_preset, _architecture) = (null, null);
        _form.Take(RunConfig.For(RunKind.Finetune));
        Estimate();
    }

    private void TakeModel(string? name)
    {
        _architecture = name is { Length: > 0 } ? name : null;
        RunConfig config = _form.Config;
        ModelConfig model = _architecture is null ? Presets.All.FirstOrDefault(p => p.Name == _preset)?.Config.Model ?? config.Model : ModelPresets.Find(_architecture).Config with { VocabularySize = 0 };
        _form.Take(config with { Model = model });
        Estimate();
    }

    private void Estimate() => _estimate = RunEstimate.Of(_form.Config, _datasets, _measured);

    private RenderFragment Field(Setting setting) => (RenderTreeBuilder builder) =>
    {
        builder.OpenComponent<SettingField>(0);
        builder.SetKey(setting.Path);
        builder.AddComponentParameter(1, nameof(SettingField.Setting), setting);
        builder.AddComponentParameter(2, nameof(SettingField.Text), _form.Text(setting));
        builder.AddComponentParameter(3, nameof(SettingField.Choices), setting.Path == "data.dataset" ? _datasets.Names : setting.Path == "finetune.base_checkpoint_path" ? _bases : []);
        builder.AddComponentParameter(4, nameof(SettingField.Wrong), (IReadOnlyList<Problem>)[.. _form.ProblemsOf(setting)]);
        builder.AddComponentParameter(5, nameof(SettingField.TextChanged), EventCallback.Factory.Create<string>(this, text =>
        {
            _form.Type(setting, text);
            Estimate();
        }));
        builder.CloseComponent();
    };

    private async Task StartAsync()
    {
        // Stays set after success: a second click may come before the browser has left the page.
        if (_starting || _form.Problems.Count > 0) return;
        _starting = true;
        try
        {
            RunRow run = await Queue.AddAsync(_form.Config);
            Navigation.NavigateTo($"runs/{run.Id}");
        }
        catch (Exception e) when (e is UserException or ProblemsException)
        {
            _starting = false;
            Snackbar.Add(e.Message, Severity.Error);
        }
    }
}
