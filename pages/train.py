"""Train: choose a recipe, start a run, watch it, stop it."""

import streamlit as st

import db
from allreview.training import jobs, runs
from allreview.ui import context, frame, needs, recipe_form, run_view

frame.inside_app()
dataset = needs.require_dataset()
jobs.resume_unfinished(context.engine(), context.settings())

st.title("Train")
recipe_form.refusal()
choose, watch = st.columns([2, 3], gap="large")

with choose:
    st.subheader("New run", anchor=False)
    recipe = recipe_form.recipe_form()
    if recipe is not None:
        recipe_form.what_it_uses(dataset.id, recipe)
        if st.button("Start training", type="primary", key="start_training", width="stretch"):
            recipe_form.start(dataset.id, recipe)

with watch, db.reading(context.engine()) as session:
    found = runs.list_runs(session, dataset_id=dataset.id)
    if not found:
        st.subheader("Runs", anchor=False)
        st.info("No runs yet. Choose a backbone on the left and start training: the curves appear here.")
        st.stop()
    shown = run_view.choose_run(found, "Run")

with watch:
    run_view.live(shown.id, polling=shown.unfinished)
